"""Maps traditional Chinese characters to the simplified ones used in the filters' patterns, one to one.

The table covers the characters of those patterns only; it is not a general converter.
"""

from __future__ import annotations

import re

_PAIRS = (
    "專专業业兩两個个臨临為为爲为舉举麼么樂乐習习鄉乡買买於于雲云親亲甚什們们價价會会傳传儲储兒儿關关興兴內内寫写決决幾几則则別别辦办務务勞劳協协單单厲厉廈厦縣县參叁發发號号嗎吗嗚呜諮咨噠哒嘖啧囉啰嘍喽喲哟"
    "嚶嘤園园圓圆塊块復复複复覆复夠够頭头妳你實实寶宝寧宁對对盡尽儘尽層层屬属歲岁師师帳帐幫帮應应開开強强當当總总願愿戶户執执護护掛挂據据換换擇择無无時时晉晋暫暂來来機机權权條条極极棟栋樣样夢梦樓楼歡欢歐欧"
    "氣气漢汉沒没滬沪滿满點点熱热煩烦愛爱狀状現现瓊琼電电碼码祕秘確确稅税粵粤係系繫系納纳線线紹绍經经結结給给絡络統统繼继續续編编羅罗羣群職职聯联蘇苏薦荐榮荣營营蠻蛮裡里裏里見见規规視视計计訂订認认議议講讲"
    "記记設设證证証证評评識识訴诉譯译話话詢询該该語语說说説说誒诶請请讀读誰谁謂谓謝谢謹谨責责貨货貳贰貼贴貴贵費费賬账贊赞讚赞贛赣蹤踪轉转較较輸输遼辽邊边過过運运還还這这遠远違违選选遞递遺遗郵邮釋释鑰钥銀银"
    "錯错鎮镇長长門门問问間间閩闽陸陆陝陕隨随難难順顺須须顧顾預预領领題题額额風风駕驾駛驶驗验魯鲁鵝鹅聲声詞词類类瞭了區区車车幹干遊游週周邨村標标籤签簽签斷断緒绪補补數数廢废銷销"
)
_TO_SIMPLIFIED = {ord(old): new for old, new in zip(_PAIRS[::2], _PAIRS[1::2], strict=True)}
_ANY_TRADITIONAL = re.compile("[" + "".join(map(chr, _TO_SIMPLIFIED)) + "]")


def simplified(text: str) -> str:
    """`text` in simplified characters, of the same length; the same object where nothing changes."""
    if text.isascii() or not _ANY_TRADITIONAL.search(text):
        return text
    return text.translate(_TO_SIMPLIFIED)
