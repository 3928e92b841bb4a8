"""Postal addresses in English, German, French, Spanish, Italian, Portuguese, Dutch and Japanese.

Each pattern is a street with its type and a house number; the town and the postal code next to it belong to the span.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.corpus.filters.lazy_pattern import lazy_pattern

_UPPER = "A-ZÀ-ÖØ-Þ"
_LETTER = "A-Za-zÀ-ÖØ-öø-ÿ"
_WORD = rf"[{_UPPER}0-9][{_LETTER}0-9.'’-]{{0,24}}+"
_SMALL = r"(?:de la|de las|de los|de l'|d'|de|del|della|dell'|dei|du|des|da|do|dos|das|la|le|les|el|los|las|von der|von|van der|van den|van|zum|zur|am|an der)"
_HOUSE = r"[0-9]{1,5}(?: ?[A-Za-z](?![A-Za-z]))?(?:[-/–][0-9]{1,5})?"

_EN_TYPE = (
    r"(?:Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Way|Terrace|Ter|Close|Crescent|Cres|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Row|"
    r"Gardens|Gdns|Grove|Mews|Hill|Walk|Quay|Trail|Trl|Alley|Loop|Pike|Plaza|Turnpike|Wharf|Broadway)"
)
_EN_UNIT = r"(?:,? (?:[Aa]pt|[Aa]partment|[Ss]uite|[Ss]te|[Uu]nit|[Ff]lat|[Ff]loor|[Rr]oom|[Rr]m|#)\.? ?#?[A-Za-z0-9-]{1,6})?"
_EN_TOWN = (
    rf"(?:,? (?:[{_UPPER}][{_LETTER}.'’-]{{1,20}} ?){{1,3}})?"
    r"(?:,? (?:[A-Z]{2}|[A-Z][a-z]{3,14})\.? [0-9]{5}(?:-[0-9]{4})?(?![0-9])|,? [A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}(?![A-Za-z0-9])|,? [A-Z]{2} [A-Z][0-9][A-Z] ?[0-9][A-Z][0-9]|,? [A-Z]{2,3} [0-9]{4}(?![0-9]))"
)
ENGLISH = lazy_pattern(
    rf"(?<![0-9A-Za-z.,/:#$€£-])(?P<unit>(?:[Ff]lat|[Aa]pt\.?|[Uu]nit|[Ss]uite) [0-9A-Za-z]{{1,5}},? )?(?P<number>{_HOUSE}),? (?:(?:[NSEW]{{1,2}}|North|South|East|West)\.? )?"
    rf"(?:{_WORD} ){{1,3}}?(?P<type>{_EN_TYPE})(?![{_LETTER}])\.?(?: (?:NE|NW|SE|SW|N|S|E|W|North|South|East|West)(?![{_LETTER}])\.?)?{_EN_UNIT}"
    rf"(?P<town>{_EN_TOWN})?"
)
_EN_TOWN_ALONE = lazy_pattern(
    # the last line of an address, in a text that names one: "Springfield, IL 62704"
    rf"(?<![{_LETTER}])(?:[{_UPPER}][{_LETTER}.'’-]{{1,20}} ){{0,2}}[{_UPPER}][{_LETTER}.'’-]{{1,20}}, [A-Z]{{2}} [0-9]{{5}}(?:-[0-9]{{4}})?(?![0-9])"
)
PO_BOX = lazy_pattern(
    r"(?<![A-Za-z])(?:P\.? ?O\.? ?Box|Postfach|Apartado(?: de [Cc]orreos)?|Boîte [Pp]ostale|Postbus|Casella [Pp]ostale) [0-9]{1,6}(?![0-9])"
)

_DE_STEM = r"(?:straße|strasse|str\.|gasse|allee|chaussee|damm|ufer|steig|stieg|pfad|weg|platz|promenade)"
GERMAN = lazy_pattern(
    rf"(?<![{_LETTER}-])(?:"
    rf"(?P<one>[{_UPPER}][{_LETTER}.-]{{1,30}}?(?:{_DE_STEM}|-(?:Straße|Strasse|Str\.|Platz|Allee|Weg|Ring|Damm|Ufer|Promenade|Gasse)))"
    rf"|(?:[{_UPPER}][{_LETTER}.-]{{1,24}} ){{1,3}}(?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Ring|Damm|Ufer|Chaussee|Promenade)"
    rf"|(?P<other>[{_UPPER}][{_LETTER}.-]{{1,30}}?(?:ring|hof|markt|berg|graben|kai|tor|garten)|(?:Am|An der|An den|Auf der|Auf dem|Im|In der|In den|Zum|Zur|Unter den|Hinter der|Vor dem) [{_UPPER}][{_LETTER}-]{{2,24}}(?: [{_UPPER}][{_LETTER}-]{{2,24}})?)"
    rf")[ ]?(?P<house>[0-9]{{1,4}}(?: ?[a-zA-Z](?![{_LETTER}]))?(?:[-/–][0-9]{{1,4}}[a-z]?)?)(?![0-9.]{{0,1}}[0-9%€])(?:,? (?:[0-9]{{1,2}}\. (?:OG|Stock)|EG|Whg\.? ?[0-9]+|Top [0-9]+))?"
    rf"(?P<town>,?[ \n](?:[DA]-|CH-)?[0-9]{{4,5}} [{_UPPER}][{_LETTER}-]{{2,24}}(?: (?:am|an der|im|bei|a\. ?[MD]\.) ?(?:[{_UPPER}][{_LETTER}]{{2,16}})?)?)?"
)
_DE_COMMON = lazy_pattern(
    r"(?:arbeits|park|sitz|spiel|steh|stell|lehr|schul|studien|markt|speicher|tabellen|steck|liege|sport|flug|start|tages|um|aus|ab|hin|rück|fort|rechts|stand|ein|vor|be|lösungs|er)(?:platz|weg|damm|steig|ufer|stieg)\Z",
    re.IGNORECASE,
)

FRENCH = lazy_pattern(
    rf"(?<![0-9A-Za-z.,/-])[0-9]{{1,4}}(?: ?(?:bis|ter|quater))?,? (?:[Rr]ue|[Aa]venue|[Aa]v\.|[Bb]oulevard|[Bb]d\.?|[Pp]lace|[Aa]llée|[Ii]mpasse|[Cc]hemin|[Qq]uai|[Rr]oute|[Cc]ours|[Ss]quare|[Pp]assage|[Ff]aubourg)"
    rf"(?: {_SMALL}){{0,2}}[ '’]?{_WORD}(?: {_WORD}){{0,3}}(?P<town>,? ?[0-9]{{5}} [{_UPPER}][{_LETTER}-]{{2,24}}(?: [{_UPPER}][{_LETTER}-]{{2,24}})?)?"
)
SOUTHERN = lazy_pattern(
    rf"(?<![{_LETTER}])(?:[Cc]alle|C/ ?|[Aa]venida|[Aa]vda\.?|[Aa]v\.|[Pp]laza|[Pp]aseo|[Cc]amino|[Cc]arrer|[Cc]arretera|[Cc]arrera|[Cc]ra\.?|[Vv]ia|[Vv]iale|V\.le|[Pp]iazza|P\.zza|[Cc]orso|[Vv]icolo|[Ll]argo|[Rr]ua|[Tt]ravessa|[Pp]raça|[Ee]strada|[Aa]lameda)"
    rf" ?(?:{_SMALL}[ '’]?){{0,2}}{_WORD}(?:(?: {_SMALL})?[ '’]{_WORD}){{0,3}}?,? ?(?:n[º°.o]{{1,2}} ?|núm\.? ?|# ?)?{_HOUSE}(?![0-9])(?:,? ?(?:[0-9]{{1,2}}[ºª°] ?[A-Za-z]{{0,3}}|piso [0-9]+|int\. ?[0-9]+|apto\.? ?[0-9]+))?"
    rf"(?P<town>,? ?(?:- )?[0-9]{{4,5}}(?:-[0-9]{{3}})? [{_UPPER}][{_LETTER}-]{{2,24}}(?: [{_UPPER}][{_LETTER}-]{{2,24}})?)?"
)
DUTCH = lazy_pattern(
    rf"(?<![{_LETTER}])[{_UPPER}][{_LETTER}-]{{1,24}}(?:straat|laan|gracht|kade|dijk|singel|plein|steeg|gatan|vägen|gade|vej|veien|gata|katu|tie|ulica|utca) [0-9]{{1,4}}(?: ?[A-Za-z](?![{_LETTER}]))?(?![0-9.]{{0,1}}[0-9%])"
    rf"(?:,? [0-9]{{4}} ?[A-Z]{{2}} [{_UPPER}][{_LETTER}-]{{2,24}}|,? [0-9]{{3}} ?[0-9]{{2}} [{_UPPER}][{_LETTER}-]{{2,24}}|,? [0-9]{{4}} [{_UPPER}][{_LETTER}-]{{2,24}})?"
)
POLISH = lazy_pattern(
    rf"(?<![{_LETTER}])(?:[Uu]l\.|[Aa]l\.|[Oo]s\.|ул\.|улица|пр\.|проспект|пер\.) ?[{_UPPER}А-ЯЁ][\w.-]{{1,24}}(?: [{_UPPER}А-ЯЁ][\w.-]{{1,24}}){{0,2}}?,? ?(?:д\. ?|дом )?[0-9]{{1,4}}[A-Za-zА-я]?(?:/[0-9]{{1,4}})?(?:,? ?(?:m\.|кв\.) ?[0-9]{{1,4}})?(?:,? [0-9]{{2}}-[0-9]{{3}} [{_UPPER}]\w{{2,20}})?"
)
JAPANESE = lazy_pattern(
    r"(?:〒 ?[0-9]{3}-[0-9]{4} ?)?(?:东京都|東京都|北海道|(?:大阪|京都)府|[\u4e00-\u9fff]{2,3}(?:県|县(?=[^0-9]{1,20}[0-9]{1,4}(?:丁目|番地))))[\u3040-\u30ff\u4e00-\u9fff]{1,20}?(?:[0-9]{1,4}(?:丁目|番地?|号|[-−ー之の])?){1,4}(?:[0-9]{1,4})?(?:号室)?"
    r"|〒 ?[0-9]{3}-[0-9]{4}"
)
KOREAN = lazy_pattern(
    r"(?:[\uac00-\ud7a3]{2,8}(?:특별시|광역시|도|시) )?(?:[\uac00-\ud7a3]{1,8}(?:시|구|군) ){1,2}[\uac00-\ud7a30-9]{1,12}(?:로|길|동) ?[0-9]{1,4}(?:-[0-9]{1,4})?(?:번지|번길 ?[0-9]{1,4})?(?:,? ?[0-9]{1,4}동)?(?: ?[0-9]{1,4}호)?"
)

_YEAR = re.compile(r"(?:1[89]|20)[0-9]{2}")
_LABEL = lazy_pattern(
    r"(?:live|lives|living|address|ship|deliver|send|mail|moved?|reside[sd]?|located|home|house|office|at|to|wohn\w{0,3}|adresse|anschrift|habite|vivo|abito|moro|dirección|indirizzo)\W{1,3}(?:\w{1,12}\W{1,2}){0,3}\Z",
    re.IGNORECASE,
)
_PART = lazy_pattern(
    r"(?:chapter|section|step|part|table|figure|page|version|lesson|episode|season|volume|level|act|scene|day|week|top|first|article|rule|item|windows|phase|unit)\W{1,2}\Z",
    re.IGNORECASE,
)
_STREETS = frozenset(("Street", "St", "Avenue", "Ave", "Road", "Rd", "Lane", "Ln", "Boulevard", "Blvd"))
_COUNT_OF_THINGS = lazy_pattern(
    r"[2-9] (?!Kings|Queens|Princes|Saints)[A-Z][a-z]{2,}(?:[^su]s|ies|ves) [A-Z][a-z]+\Z"
)
"""A title such as "9 Lives Lane" is no address by itself."""
_GOES_ON = re.compile(" [a-z]")
_NO_STREET = lazy_pattern(
    r"(?:Hard|Google|Flash|Test|Disk|USB|Thumb|One|Tape|Cloud|Supreme|Federal|District|Milky|Best|Only|Right|Easy|Other|Same|Wall|Sesame|Times|Food|First|Second|Third|Three|Two|Four|Five|Core) (?:Drive|Court|Way|Street|Place|Square|Circle|Row|Loop|Dr|St|Pl)\Z"
)


def may_hold_western(text: str) -> bool:
    """A necessary condition of `find_western`: a number next to a word in letters, or letters of Japanese or Korean."""
    return (
        _AFTER_LATIN.search(text) is not None
        or _BEFORE_LATIN.search(text) is not None
        or (not text.isascii() and _OTHER_LETTER.search(text) is not None)
    )


def find_western(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of postal addresses in languages other than Chinese."""
    has = text.lower().__contains__
    english = _HOUSE_AND_NAME.search(text) is not None and any(map(text.__contains__, _EN_WORDS))
    german = _BEHIND_NAME.search(text) is not None and (
        any(map(has, _DE_WORDS)) or (_DE_TOWN.search(text) is not None and any(map(has, _DE_PLACES)))
    )
    others = [
        pattern for condition, words, pattern in _BY_WORDS if condition.search(text) and any(map(has, words))
    ]
    if not (english or german or others) or not _ALPHABETIC.search(text):
        return
    if english:
        yield from _english(text)
    if german:
        yield from _german(text)
    for pattern in others:
        yield from (match.span() for match in pattern.finditer(text) if _is_street(text, match, pattern))


# Each begins with the digit, to which `re` skips fast.
_NEXT = rf"[{_LETTER}А-я.,'’#º°/-]"
_AFTER_LATIN = re.compile(rf"[0-9](?:(?<={_NEXT}.)|(?<={_NEXT}[ \n].))")
"""A number as it stands in an address that ends with it."""
_BEFORE_LATIN = re.compile("[0-9][A-Za-z]?,? [A-Za-zÀ-ÿ0-9]")
"""A number as it stands in an address that begins with it."""
_OTHER_LETTER = re.compile(
    r"[\u3040-\u30ff\uac00-\ud7a3〒都道府県县](?:(?<=[\u3040-\u30ff\uac00-\ud7a3〒])|[\u4e00-\u9fff]{1,20}[0-9])"
)
_ALPHABETIC = re.compile(
    r"[A-Za-zÀ-ÿА-я][.,]?[ \n]?(?:n[º°.o]{1,2} ?|д\. ?|#)?[0-9]|[0-9][A-Za-z]?,? [A-Za-zÀ-ÿ]"
    r"|[\u3040-\u30ff\uac00-\ud7a3〒]|[都道府県县][\u4e00-\u9fff]{1,20}[0-9]"
)
"""A number next to a word; Chinese alone is for `addresses`."""
_HOUSE_AND_NAME = re.compile(rf"[0-9][A-Za-z]?,? [{_UPPER}0-9]")
_EN_WORDS = tuple(
    f" {word}"
    for word in _EN_TYPE[3:-1].replace("|", " ").split()
    if word not in ("Street", "Avenue", "Drive", "Terrace")
)
"""Each longer type begins with a shorter one."""
_DE_TOWN = re.compile(rf"[0-9]{{4,5}} [{_UPPER}]")
_DE_WORDS = ("straße", "strasse", "str.", "gasse", "allee", "chaussee", "damm", "ufer", "steig", "stieg", "pfad", "weg", "platz", "promenade")  # fmt: skip
_DE_PLACES = ("ring ", "hof ", "markt ", "berg ", "graben ", "kai ", "tor ", "garten ", "am ", "an de", "auf de", "im ", "in de", "zum ", "zur ", "unter den", "hinter der", "vor dem")  # fmt: skip
"""Streets that only a town after them tells from other words."""
_BEHIND_NAME = re.compile(rf"[{_UPPER}][{_LETTER}.-]{{1,44}} ?[0-9]")
"""The end of a German street and its number."""
_BEHIND_BOX = re.compile("[0-9](?<=(?:ox|ch|do|os|le|us) .)")
_BEHIND_WORD = re.compile(
    rf"[{_UPPER}0-9][{_LETTER}0-9.'’-]{{0,24}}+,? ?(?:n[º°.o]{{1,2}} ?|núm\.? ?|# ?)?[0-9]"
)
_BEHIND_SUFFIX = re.compile("[0-9](?<=(?:at|an|ht|de|jk|el|in|eg|en|ej|ta|tu|ie|ca) .)")
_BEFORE_FRENCH = re.compile(
    r"[0-9](?: ?(?:bis|ter|quater))?,? (?:[Rr]ue|[Aa]v|[Bb]oul|[Bb]d|[Pp]la|[Aa]ll|[Ii]mp|[Cc]he|[Qq]uai|[Rr]out|[Cc]ours|[Ss]qu|[Pp]ass|[Ff]aub)"
)
_ABBREVIATED = re.compile(r"\.|улица|проспект")
_JAPANESE = re.compile("[県〒丁番东東北大京]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_BY_WORDS: tuple[tuple[re.Pattern[str], tuple[str, ...], re.Pattern[str]], ...] = (
    (_BEHIND_BOX, ("box", "postfach", "apartado", "boîte", "postbus", "casella"), PO_BOX),
    (_BEFORE_FRENCH, ("rue", "avenue", "av.", "boulevard", "bd", "place", "allée", "impasse", "chemin", "quai", "route", "cours", "square", "passage", "faubourg"), FRENCH),
    (_BEHIND_WORD, ("calle", "c/", "avenida", "avda", "av.", "plaza", "paseo", "camino", "carrer", "carretera", "cra", "via", "v.le", "piazza", "p.zza", "corso", "vicolo", "largo", "rua", "travessa", "praça", "estrada", "alameda"), SOUTHERN),
    (_BEHIND_SUFFIX, ("straat ", "laan ", "gracht ", "kade ", "dijk ", "singel ", "plein ", "steeg ", "gatan ", "vägen ", "gade ", "vej ", "veien ", "gata ", "katu ", "tie ", "ulica ", "utca "), DUTCH),
    (_ABBREVIATED, ("ul.", "al.", "os.", "ул.", "улица", "пр.", "проспект", "пер."), POLISH),
    (_JAPANESE, ("东京都", "東京都", "北海道", "大阪府", "京都府", "県", "〒", "丁目", "番地"), JAPANESE),
    (_HANGUL, ("로", "길", "동"), KOREAN),
)  # fmt: skip
"""Parts of which each text with such an address has one, in lower case, and a condition that is tried before."""


def _is_street(text: str, match: re.Match[str], pattern: re.Pattern[str]) -> bool:
    """Whether it is one also where its words are English too ("via Python 3", "5 Place Setting")."""
    if pattern is FRENCH:
        return match["town"] is not None or _ENGLISH_TOO.match(match.group()) is None
    return (
        pattern is not SOUTHERN
        or not match.group().lower().startswith("via ")
        or match["town"] is not None
        or _IN_ITALIAN.search(text, max(0, match.start() - 40), match.start()) is not None
    )


_ENGLISH_TOO = lazy_pattern(r"[0-9]{1,4} (?:Place|Square|Route|Passage|Avenue|Boulevard|Cours) [A-Za-z]++\Z")
_IN_ITALIAN = lazy_pattern(
    r"(?<!\w)(?:in|abito|abita|indirizzo|residente|casa|vivo|sede)\W{1,3}(?:\w{1,12}\W{1,3}){0,3}\Z",
    re.IGNORECASE,
)


def _english(text: str) -> Iterator[tuple[int, int]]:
    found = False
    for match in ENGLISH.finditer(text):
        street = text[match.end("number") : match.end("type")]
        if _NO_STREET.search(street):
            continue
        sure = (
            match["town"] or match["unit"] or _LABEL.search(text, max(0, match.start() - 60), match.start())
        )
        if not sure and (
            _PART.search(text, max(0, match.start() - 16), match.start())
            or _YEAR.fullmatch(match["number"])
            or _COUNT_OF_THINGS.match(match["number"] + street)
            or (match["type"] not in _STREETS and _GOES_ON.match(text, match.end()))
            or text.startswith(" trip", match.end())
            or (len(match["type"]) < 3 and match["type"] not in ("St", "Rd"))
        ):
            continue
        found = True
        yield match.span()
    if found:
        yield from (match.span() for match in _EN_TOWN_ALONE.finditer(text))


def _german(text: str) -> Iterator[tuple[int, int]]:
    for match in GERMAN.finditer(text):
        if match["town"]:
            yield match.span()
        elif match["one"]:
            if not _DE_COMMON.search(match["one"]) and not _YEAR.fullmatch(match["house"]):
                yield match.span()
        elif match["other"] is None or _LABEL.search(text, max(0, match.start() - 60), match.start()):
            yield match.span()
