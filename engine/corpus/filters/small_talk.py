"""Patterns of small talk for one lower-case NFKC clause, used by `low_value`."""

from __future__ import annotations

import re


def _any(*parts: str) -> str:
    """Any of the parts, for `fullmatch`."""
    return r"\A(?:" + "|".join(parts) + ")"


PARTICLES = re.compile(
    r"(?:[呀啊哦噢喔哟呦哈啦咯喽嘛吧呢的哒滴捏哇诶唉亲]|亲爱的|朋友|老师|同学|~){1,24}+$|^(?:亲|那|那么|那就|嗯+|恩+|哦+|啊|哈+|噢|诶|唉|呃)(?=[^\s])"
)
"""Modal particles at the end of a clause and fillers at its beginning."""

QUESTION = re.compile(
    r"吗|什么|多少|哪|怎么|怎样|如何|几[个点家号天年月岁元块]|多[久大远高长]|谁|为什么|为啥|是否|有没有|能不能|可不可以|是不是|会不会"
    r"|[呢么没不]$(?<=[^什要这那多怎])(?<=..)(?=\?)"
    r"|\b(?:what|how|why|when|where|who|whom|whose|which)\b(?!\s+(?:a|an|nice|great|wonderful)\b)"
    r"|^(?:is|are|am|was|were|do|does|did|can|could|would|will|shall|should|may|might|has|have|had)\s+(?:i|you|he|she|it|we|they|there|this|that|the|my|your)\b"
)

CLOSING_QUESTION = re.compile(
    r"^(?:那么?|请问|不知道?|看看|亲)*(?:您|你|亲)?(?:是否)?(?:还|另外)?(?:有|需要)(?:没有)?(?:其他|其它|别的|什么|啥|任何|哪些)*的?"
    r"(?:问题|疑问|需求|吩咐|需要|事情?|想问的?|想知道的?|想了解的?|(?:地方)?(?:需要)?我?(?:们)?(?:可以|能|能够|需要)?我?(?:们)?(?:为|帮|协助|效劳|服务|解答))"
    r"(?:$|(?:可以|能|能够|需要)?我?(?:为|帮|协助|效劳|服务|问|解答|的|到|助|忙|您|你|吗|么|嘛|呢|没有|没|上|做)*+(?:地方|事|服务)?(?:的|吗|么|嘛|呢|没有)*+$)"
    r"|^(?:请问)?(?:我)?(?:还)?(?:有)?(?:什么|哪里|啥)?(?:我)?(?:还)?(?:可以|能|能够)(?:为|帮)(?:到|助)?(?:您|你)(?:做|服务|解答|的|点|些|什么|到|吗|呢|效劳)*$"
    r"|(?:is there )?(?:anything|something) else (?:i can|you(?:'d| would)? (?:like|need|want)|that i)|^(?:is there )?anything else$|what else can i (?:do|help)|how else (?:can|may) i"
)
"""Questions that only offer more help."""

_PERSON = r"(?:您|你|您们|你们|大家|各位|亲|宝|小\w)?"
GREETING = re.compile(
    _any(
        r"(?:您|你|您们|你们|大家|各位|亲|小\w|老师|同学们?|朋友们?)好(?:呀|啊|哦|哈)?",
        r"(?:早上|上午|中午|下午|晚上|早|晚)好",
        r"早安?|午安|晚安",
        r"嗨+|嘿+|哈[喽啰罗咯]|哈喽+|喂+",
        r"在(?:吗|么|不在|嘛|不)?|有人(?:吗|在吗)?",
        r"(?:你|您)(?:还)?(?:好吗|在吗|在么|怎么样|最近好吗)|最近(?:怎么样|好吗|如何)|吃了(?:吗|没)",
        r"很?高兴(?:认识|见到)" + _PERSON + r"|好久不见|初次见面|欢迎(?:光临|你|您|回来)?",
        r"(?:请问)?有什么(?:我)?(?:能|可以)?帮(?:助|到|忙|您|你)?.{0,8}",
        r"(?:hi+|hello+|hey+|yo|howdy|greetings|hiya)(?:\s+(?:there|again|all|everyone|everybody|guys|friend|buddy|assistant|bot|\w{2,12}))?",
        r"good\s+(?:morning|afternoon|evening|day)(?:\s+\w+)?|morning",
        r"how(?:'s| is| are)\s+(?:it going|you(?: doing)?(?: today)?|things|everything)|how do you do|what'?s up|sup",
        r"(?:it'?s\s+)?(?:nice|good|great|pleased)\s+to\s+(?:meet|see)\s+you(?:\s+(?:too|again))?|long time no see|welcome(?: back)?",
        r"(?:so\s+)?how (?:can|may) i (?:help|assist)(?: you)?(?: today)?|are you there|anyone there",
    )
)

THANKS = re.compile(
    r"谢谢|谢(?:了|啦|过|咯|喽|您|你)|感谢(?!信|函|状|祭)|多谢|致谢|感激|谢$|辛苦(?:了|你|您|啦)|麻烦(?:你|您)?了$|添麻烦了|有劳|费心"
    r"|^(?:\w+\s+){0,3}(?:thanks?(?! to (?!you))|thankyou|thx|tks|tnx|ty|cheers|much obliged|ta)\b|\b(?:thanks|thank you(?: \w+){0,4}|thx|cheers)$"
    r"|\bi(?:'m| am)? (?:\w+ )?(?:grateful|appreciate)|\bappreciate(?:d)? (?:it|that|your|the)\b|^3[qx]$"
)

_HELP = r"(?:帮助?|帮上?|帮到|帮忙|协助|服务|效劳|解答|为您|为你|能帮)"
WELCOME = re.compile(
    _any(
        r".{0,4}(?:不|别|甭|勿|莫|不用|不必|无需|无须).{0,5}(?:客气|谢|介意|见外).{0,3}",
        r".{0,5}(?:太|真是|还|这么)?客气(?:了|啥|什么|啦|干啥|干嘛|的)?.{0,2}",
        r"(?:没|没有|木)(?:事|关系|什么|啥)(?:儿|的|了)?|小(?:事|意思|case)|应该(?:做)?的?|(?:这)?(?:都)?是?我?(?:们)?应该做",
        r"(?:这)?(?:都)?是?我?(?:们)?(?:的)?(?:荣幸|职责|本分|分内(?:之事)?)|(?:都)?是?举手之劳.{0,6}",
        r".{0,8}(?:很|非常|十分|特别)?(?:高兴|开心|乐意|荣幸|愿意|希望).{0,4}" + _HELP + r".{0,6}",
        r"(?:能|可以)" + _HELP + r"(?:到|上)?.{0,4}(?:是我的荣幸|就好|很高兴|很开心)?",
        r"(?:有|如|如果|若|要是)?.{0,8}(?:问题|需要|疑问|事|需求|疑惑|困难).{0,6}(?:再|随时|尽管|欢迎|可以).{0,4}(?:联系|找|问|咨询|来|告诉|说|提问).{0,6}",
        r"(?:请)?(?:随时|尽管|欢迎).{0,6}(?:联系|找|问|咨询|提问|光临|告诉|为您|为你|吩咐|服务|提出|再来|惠顾|使用).{0,6}",
        r"随时(?:为|替)?(?:您|你)?.{0,8}|为人民服务|(?:您|你)满意就好|(?:祝)?合作愉快",
        r"(?:you(?:'re| are)|ur)\s+(?:very\s+|most\s+|so\s+|always\s+)?welcome.{0,12}|(?:very\s+)?welcome",
        r"(?:it'?s\s+|that'?s\s+)?(?:no|not a)\s+(?:problem|worries|worry|trouble|biggie)(?:\s+at all)?|np|don'?t mention it|not at all|it was nothing",
        r"(?:it(?:'s| was| is)\s+)?my\s+pleasure|(?:with\s+)?pleasure|any\s*time|of course|sure thing|you bet",
        r"(?:i'?m\s+|i am\s+)?(?:so\s+|very\s+|always\s+)?(?:glad|happy|pleased|here)\s+(?:to\s+(?:help|assist|be of|hear)|i could|that (?:i|it)|it|you|if you).{0,50}",
        r"(?:please\s+)?(?:feel free|don'?t hesitate|just|let me know|reach out).{0,60}(?:question|ask|anything|help|need|know|contact|touch|assist).{0,30}",
        r"if you (?:have|need).{0,60}|let me know if.{0,60}|(?:i\s+)?hope (?:this|that|it) helps?.{0,10}",
    )
)

GOODBYE = re.compile(
    _any(
        r"再见|拜+|掰掰|白白|拜了个拜|88+6?|回头见|回见|下次见|明天见|改天(?:聊|见)|下次(?:再)?聊|先这样|就这样|(?:我)?(?:先)?(?:下|走|睡|撤|忙)(?:了|去了)|待会(?:儿)?见|慢走|保重|一路顺风",
        r"(?:也|预|先|谨|衷心)?祝(?:福|愿)?(?:您|你|大家|各位|他|她|我).{0,24}",
        r"(?:祝)?.{0,10}(?:生活|旅途|旅行|工作|周末|假期|学习|用餐|玩得|玩的|游玩|入住|心情|一切)?(?:愉快|顺利|开心|快乐|顺心|平安)",
        r"(?:期待|欢迎)(?:您|你)?.{0,6}(?:下次|再次|再).{0,8}|晚安.{0,6}|做个好梦",
        r"(?:good\s*)?bye+(?:[\s-]*bye)?(?:\s+\w+)?|see\s+(?:you|ya|u)(?:\s+(?:later|soon|again|tomorrow|next time|around))?|cya|later|farewell|take care|so long|talk (?:to you )?(?:later|soon)|ttyl|until next time|catch you later",
        r"(?:i\s+)?(?:hope you\s+)?(?:have|enjoy)\s+(?:a|an|your|the)\s+(?:\w+\s+){0,2}(?:day|night|evening|weekend|one|time|trip|rest|afternoon|week|meal)(?:\s+\w+){0,2}",
        r"good\s*night|sleep (?:well|tight)|sweet dreams|best (?:wishes|regards|of luck)|good luck|all the best|gotta go|g2g|i(?:'m| am) (?:off|leaving)|wish you.{0,40}",
    )
)

_DONE = r"(?:我|俺|咱|暂时|目前|现在|真的|已经|应该|这边|也|就|都|全|完全|再)*"
ACKNOWLEDGEMENT = re.compile(
    _any(
        r"(?:好++|嗯++|恩++|哦++|噢++|喔++|啊++|呃++|额++|唔++|诶++|欸++|行++|对++|是++|成|中|妥+|可以?|妥妥|善|彳亍|得|得嘞|得了)(?:的|了|吧|呢|呀|啊|哈|嘞|咧|哒|滴|噢|哦|啦|极了|嘛|呗)*",
        r"(?:好|嗯|恩|哦|行|对|是)(?:的|了|吧|呀|嘞)*(?:好|嗯|恩|哦|行|对|是)(?:的|了|吧|呀|嘞)*",
        r"哦了|欧了|哦哦+|嗯呢|好滴|好咯|好哒|好嘞|好咧|好吧|收到|了解|知道|明白|懂|清楚|记住|记下|学到|学会|get|悟",
        _DONE
        + r"(?:收到|了解|知道|明白|懂|清楚|记住|记下|记下来|学到|学会|存好|看到|理解|没问题|问完|搞定|解决|安排)(?:了|啦|咯|呢)?",
        _DONE
        + r"(?:没有?|没啥|没什么|不需要|不用).{0,2}(?:其他|其它|别的|什么|任何)?的?(?:问题|事|需要|疑问|想问)(?:要问|可问)?(?:的|了|啦)?",
        _DONE + r"(?:没有?|没啥|没什么|不需要|不用)(?:其他|其它|别的|什么)?的?(?:了|啦)",
        r"(?:我的?)?(?:问题)?(?:都|全|已经)?(?:问完|解决|说完)了?",
        r"(?:真|太|很|挺|非常|真的|还|蛮|确实|相当|特别|都|可真是|真是太|实在是太)*(?:好|棒|赞|不错|牛|厉害|完美|满意|给力|可以|行|开心|高兴|有用|有帮助|专业|强|贴心|酷)(?:极)?(?:了|的|啦)?",
        r"(?:原来如此|原来是这样|这样|这样子|是这样|这样啊|也是|当然|必须|没毛病|说得对|有道理|同意|赞同|正是|没错|确实|果然|是滴|对头|不用|不了|算了|随便|都行|都可以|无所谓)",
        r"哈+|呵+|嘿+|嘻+|哇+|哇塞|呜+|嘤+|啧+|hh+|233+|666+|lol|lmao|haha(?:ha)*|hehe|wow|oh+|ah+|uh+|um+|hm+|mm+",
        r"就?(?:这样|这么定|这么办|它|他|她|这个|这家|这里|那|那样)(?:吧|了)?",
        r"(?:oh\s+|ah\s+|yes\s+|yeah\s+|well\s+|that(?:'s| is)\s+|it(?:'s| is)\s+|all\s+|sounds?\s+|looks?\s+|very\s+|so\s+|really\s+|pretty\s+|quite\s+|just\s+)*"
        r"(?:ok(?:ay|ey|ie|k)?|k+|kk|yes+|yep|yup|yeah+|ya|yea|no|nope|nah|sure|right|alright|fine|good|great|cool|nice|perfect|awesome|excellent|amazing|wonderful|fantastic|lovely|brilliant|interesting|helpful|exactly|indeed|agreed|absolutely|definitely|certainly|roger|noted|understood|done|all|clear|fair enough|will do|got (?:it|that|ya)|gotcha|i (?:see|understand|know|got it|agree)|makes sense|never ?mind|good to know|that works|works for me|continue|go on)"
        r"(?:\s+(?:then|now|man|bro|buddy|sir|so much|enough|too|thanks|set|it|that|with me|for now))?",
    )
)

_SAY = r"(?:请|麻烦)?(?:你|您)?(?:能|可以)?(?:帮我|给我|替我|用.{1,6})?"
ASKS_FOR_WORDING = re.compile(
    r"怎么说|怎么讲|怎么写|怎么读|翻译|译成|用.{1,4}(?:文|语)|造句|(?<![谢您你的])回复|写一[句条个封]|一个(?:字|词)|[同近反]义词|打个?招呼|问候语|填空|跟我[说念读]|只(?:能|要|需|用|许)?(?:说|答|回答|输出|写|回)"
    r"|(?:^|[。！？?!，,：:\n])\s{0,4}" + _SAY + r"(?:(?:说|讲|念|写|来)一?[句声个遍]|补全|重复|复述|改写)"
    r"|how (?:do|would|to).{0,10}say|translat|(?<!to )\bsay\b|\b(?:reply|respond|answer)\b (?:\w+ ){0,3}(?:with|in|only|just|by|using)\b|\b(?:only|just) (?:reply|respond|answer|output|write|say)\b"
    r"|\b(?:reply|respond)\b(?! (?:from|soon|quickly))|meaning of|\b(?:one|single|two|exact)[ -]words?\b|\bword\b.{0,12}\b(?:for|that|of)\b|synonym|antonym|opposite of|rhymes? with|(?:^|[.:!?\n]\s{0,4}|\bplease )(?:repeat|complete|rewrite|spell|finish|fill in)\b|\b(?:greet|greeting|farewell)\b"
)
"""A prompt that asks for a wording, so that "thank you" may be the answer."""

ASKS_TO_REPEAT = re.compile(
    r"重复|复读|[0-9一二两三四五六七八九十百千几多]\s*[遍次]|\brepeat|\bover and over\b"
    r"|\b(?:[0-9]+|two|three|four|five|six|seven|eight|nine|ten|twenty|fifty|hundred|thousand|several|many) times\b"
)
"""A prompt that asks for repetition."""

ASKS_TO_CHOOSE = re.compile(
    r"分类|归类|情感|情绪|判断|(?<![我就])选(?:择|出|一|项|哪|\s?[a-z甲乙丙丁])|(?:褒|贬)义|正面.{0,3}负面|积极.{0,3}消极|[对真]还是[错假]|是否|对错|真假|标签|打分|评级|评价"
    r"|(?:^|[。！？?!，,：:\n])[^。！？?!，,：:\n]{1,12}还是(?!算|谢|不|要谢|多谢|感谢|麻烦)[^。！？?!，,：:\n]"
    r"|\bclassif|\bsentiment|\bcategori[sz]|\bcategory\b|\blabel\b|(?:^|[.:!?\n]\s{0,4}|\bplease )(?:answer|choose|pick|select|decide|judge|rate|grade|evaluate|determine)\b|\bmultiple choice\b|\btrue or false\b|\b(?:yes|ok|okay|good|right|correct|positive)[ /]*(?:or|/)[ /]*(?:no|not|bad|wrong|incorrect|negative|neutral)\b"
)
"""A prompt that asks to choose, so that "good" may be the answer."""

EXPLAINS_WORDS = re.compile(
    r"意思是|(?:是|叫|为|即).{0,3}(?:\w语|[英日法德中韩俄]文)|(?:\w语|[英日法德中韩俄]文).{0,6}(?:是|叫|说)"
    r"|\bmean(?:s|ing)\b|\bis (?:the )?\w+ for\b|\bin (?:english|french|german|spanish|italian|chinese|japanese|korean|russian|portuguese|latin|arabic)\b"
)
"""A clause that explains a word of small talk."""

INSTRUCTS = re.compile(
    r"^请?你?(?:用.{1,6})?说一?[句声]|^say\b|帮我|帮忙(?:查|找|看|推|订|叫|介|问|写|做|选)|麻烦(?:你|您)?(?:再|帮|给|把|告|查|找|推|介)|请(?!问完|放心|保重|慢走|留步|稍)|给我|告诉|推荐(?!$|，|哈|啊|的|得|，)|(?<!你的)(?<!您的)介绍(?:一|个|下|给)"
    r"|想(?:要|找|去|吃|知道|问|看|买|预|了解|请)|打算|需要|我要|查(?:一|下|找|查)|找(?:一|个|家|找)|再(?:来|帮|找|推|查|看|写|给|说|换)|换(?:一|个|成)|继续|重新|预订|预定|订(?:一|个)|写(?:一|个|首|篇)|生成|解释|总结|翻译|分析|列出|举例|说说|讲讲|计算|比较|改成"
    r"|\b(?:please|tell|show|give|find|write|explain|list|make|create|help me|recommend|suggest|search|look up|book|translate|summari[sz]e|compare|i (?:need|want|would like|'d like)|let'?s|could you|can you)\b"
)
"""Instructions and wishes: such a clause is content."""

INFORMS = re.compile(
    r"[0-9#%$¥€£@=<>{}\[\]\\/`|]"
    r"|建议|位于|地址|电话|号码|推荐您|推荐你|为(?:您|你)推荐|门票|评分|价格|营业|人均|因为|所以|但是|如果|首先|其次|例如|比如|包括|分别|根据|其中|属于|意思是|意味|对不起|抱歉|很遗憾|不好意思"
    r"|\b(?:because|therefore|however|although|means?|for example|such as|located|address|first|second|step|sorry|unfortunately|cannot|can't)\b"
)
"""Evidence of information in a clause: numbers, reasons, places, refusals."""
