"""One key for the spellings of one word: British and American, contracted and full."""

from __future__ import annotations

import re

from engine.corpus.dedup.english import is_word

_OUR = re.compile(
    r"((?:dis|un|mis)?(?:arm|behavi|cand|clam|col|demean|endeav|ferv|fav|flav|glam|harb|hon|hum|lab|neighb|od|parl|ranc|rig|rum|"
    r"sav|splend|succ|tum|val|vap|vig))our(s|ed|ing|er|ers|ful|fully|less|able|ably|ite|ites|itism|hood|hoods|y|al|ally|ist|ists)?"
)
_ISE = re.compile(r"(\b\w{3,40})is(e|ed|es|er|ers|ing|ation|ations|ational|able)")
_YSE = re.compile(r"(anal|paral|catal|electrol|hydrol|dial|breathal)ys(e|ed|er|ers|ing)")
_RE = re.compile(
    r"((?:kilo|centi|milli|deci|nano|micro)?(?:met|lit)|cent|epicent|theat|amphitheat|fib|sab|spect|meag|lust|calib|somb|manoeuv|och|nit|mit)re(s|d)?"
)
_OGUE = re.compile(r"(catal|dial|anal|monol|prol|epil)ogue(s|d)?")
_DOUBLED = re.compile(r"(\b\w{0,20}[aeiouy]\w{0,20}[aeiou])ll(ed|ing|er|ers|ings|ous|ously|ery|or|ors|ation)")
_AE = re.compile(
    r"(an)?(aemi|aesth|paediat|oedem|oestr|foet|archaeol|encyclopaed|mediaev|diarrhoe|gynaec|orthopaed|oesoph|leukaem|haemo|manoeuv|caes|homoeo)"
)
_WORDS = {
    "grey": "gray", "greys": "grays", "greyish": "grayish", "tyre": "tire", "tyres": "tires", "defence": "defense", "defences": "defenses",
    "offence": "offense", "offences": "offenses", "licence": "license", "licences": "licenses", "pretence": "pretense",
    "practise": "practice", "practised": "practiced", "practises": "practices", "practising": "practicing",
    "programme": "program", "programmes": "programs", "cheque": "check", "cheques": "checks", "plough": "plow", "ploughed": "plowed",
    "mould": "mold", "mouldy": "moldy", "moulds": "molds", "moustache": "mustache", "pyjamas": "pajamas", "sceptic": "skeptic", "sceptical": "skeptical",
    "artefact": "artifact", "artefacts": "artifacts", "cosy": "cozy", "jewellery": "jewelry", "aluminium": "aluminum", "sulphur": "sulfur",
    "fulfil": "fulfill", "fulfils": "fulfills", "fulfilment": "fulfillment", "skilful": "skillful", "skilfully": "skillfully", "enrol": "enroll",
    "enrolment": "enrollment", "instalment": "installment", "instalments": "installments", "wilful": "willful", "enthral": "enthrall", "distil": "distill",
    "judgement": "judgment", "judgements": "judgments", "acknowledgement": "acknowledgment", "ageing": "aging", "likeable": "likable",
    "learnt": "learned", "burnt": "burned", "dreamt": "dreamed", "spoilt": "spoiled", "whilst": "while", "amongst": "among", "amidst": "amid",
    "towards": "toward", "afterwards": "afterward", "backwards": "backward", "forwards": "forward", "upwards": "upward", "downwards": "downward",
    "e-mail": "email", "e-mails": "emails", "okay": "ok", "adviser": "advisor", "advisers": "advisors", "grams": "grams", "gramme": "gram", "grammes": "grams",
    "kerb": "curb", "storey": "story", "storeys": "stories", "draughty": "drafty", "doughnut": "donut", "doughnuts": "donuts", "omelette": "omelet",
    "yoghurt": "yogurt", "yoghurts": "yogurts", "chilli": "chili", "mum": "mom", "maths": "math", "tranquillity": "tranquility", "analogue": "analog",
    "carburettor": "carburetor", "smoulder": "smolder", "smouldering": "smoldering", "woollen": "woolen", "marvellous": "marvelous", "furore": "furor", "axe": "ax",
}  # fmt: skip
_FORMS = (("our", _OUR, r"\1or\2"), ("lys", _YSE, r"\1yz\2"), ("ogue", _OGUE, r"\1og\2"))
_NAMES = frozenset(["Grey", "Greys", "Labour", "Harbour", "Honour", "Practise", "Mould", "Centre", "Theatre"])
"""With a capital these may be names, which count."""
_AE_AMERICAN = {
    "aemi": "emi",
    "aesth": "esth",
    "mediaev": "mediev",
    "manoeuv": "maneuv",
    "diarrhoe": "diarrhe",
    "caes": "ces",
}

_CONTRACTED = re.compile(r"\b([A-Za-z]+)'(t|re|ve|ll|m|s|d)\b", re.IGNORECASE)
_FULL = {"re": "are", "ve": "have", "ll": "will", "m": "am", "d": "would"}
_BEFORE_IS = frozenset(
    ["it", "that", "there", "here", "he", "she", "what", "who", "where", "how", "this", "when"]
)
_IRREGULAR = {
    "can't": "can not",
    "won't": "will not",
    "shan't": "shall not",
    "let's": "let us",
    "ain't": "is not",
}
_CANNOT = re.compile(r"\bcannot\b", re.IGNORECASE)
_ABOUT_SPELLING = (
    "spell", "spelt", "british english", "american english", "orthograph", "apostroph", "contraction", "contracted form", "abbreviat",
    "拼写", "拼法", "英式英语", "美式英语", "缩写", "繁体", "繁體", "简体", "簡體", "异体字", "異體字", "错别字", "錯別字", "错字",
)  # fmt: skip


def is_about_spelling(text: str) -> bool:
    """Whether a text speaks of how words are written: then their spelling counts."""
    lower = text.casefold()
    return any(word in lower for word in _ABOUT_SPELLING)


def without_contractions(prose: str) -> str:
    """ "Don't" as "do not". The 's of a noun may be its genitive and stays."""
    if "'" in prose:
        prose = _CONTRACTED.sub(_written_out, prose)
    return _CANNOT.sub("can not", prose) if "annot" in prose else prose


def _written_out(found: re.Match[str]) -> str:
    whole, word, end = found[0], found[1], found[2].lower()
    lower = whole.lower()
    if lower in _IRREGULAR:
        return _IRREGULAR[lower]
    if end == "t":
        return f"{word[:-1]} not" if word[-1] in "nN" and len(word) > 2 else whole
    if end == "s":
        return f"{word} is" if word.lower() in _BEFORE_IS else whole
    return f"{word} {_FULL[end]}" if word[0].isalpha() else whole


def american(token: str) -> str:
    """The American spelling, in small letters, of a word given with its case."""
    word = token.casefold()
    if len(word) < 3 or not word.isascii() or token in _NAMES or (token.isupper() and len(token) < 7):
        return word
    if word in _WORDS:
        return _WORDS[word]
    if len(word) < 5:
        return word
    for part, pattern, form in _FORMS:
        if part in word and (found := pattern.fullmatch(word)):
            word = found.expand(form)
    if "re" in word and (found := _RE.fullmatch(word)):
        word = f"{found[1]}er{found[2] or ''}"
    if "ae" in word or "oe" in word:
        word = _AE.sub(_with_e, word)
    if "is" in word and (found := _ISE.fullmatch(word)) and is_word(f"{found[1]}ize"):
        word = f"{found[1]}iz{found[2]}"
    if (
        "ll" in word
        and (found := _DOUBLED.fullmatch(word))
        and is_word(found[1] + "l")
        and not is_word(found[1] + "ll")
    ):
        word = f"{found[1]}l{found[2]}"
    return word


def _with_e(found: re.Match[str]) -> str:
    stem = found[2]
    return (found[1] or "") + _AE_AMERICAN.get(stem, stem.replace("ae", "e").replace("oe", "e"))
