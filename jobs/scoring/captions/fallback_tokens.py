"""Split a caption into words nearly as the PTB tokeniser does, where the extra is missing. It knows strings only.

Written from what Stanford CoreNLP 3.4.1 makes of hard strings. It is not the published tokeniser: whoever uses it
says so beside the numbers.
"""

import re

_APOSTROPHE = "['’]"
# Small and raised numbers and fractions are signs of their own; accents that stand apart belong to their letter.
_NO_LETTER = "²³¹¼-¾⁰-₟⅐-⅟"
_LETTER = rf"(?:[^\W\d_{_NO_LETTER}]|[\u0300-\u036f])"
_WORD = rf"(?:[^\W_{_NO_LETTER}]|[\u0300-\u036f])"

# Written with a full stop that belongs to them, in whatever case.
_SHORT = """mr mrs ms dr drs prof profs rev sen gov gen col lt sgt cpl capt maj cmdr adm pres rep hon st ste ave blvd rd
ct sq mt ft bldg inc corp co cos ltd bros assn assoc dept est etc vs cf al jan feb mar apr jun jul aug sep sept oct nov
dec mon tue tues wed thu thurs fri jr sr md esq ph\\.d calif fla ariz colo conn ga ind kan ky mich minn mo mont neb nev
okla penn tenn va vt wis wyo ala messrs mme mlle insp supt pvt spc tel ext intl univ natl elec asst lieut plc mfg"""
_SHORT_WITH_CAPITAL = "Mass|Tex|Ark|Del|Ill|La|Miss|Ore|Pa|Wash"
_SHORT_BEFORE_NUMBER = "ca|nos?|figs?|pp|art|op|prop"

_ADDRESS = r"""
    https?://[^\s"<>|()]+[^\s"<>|.!?(){},-]
  | (?:www\.(?:[^\s"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}|(?:[^\s"`'<>|.!?(){},_$-]+\.)+(?:com|net|org|edu))\b
    (?:/[^\s"<>|()]+[^\s"<>|.!?(){},-])?
  | <?[a-zA-Z0-9][^\s"<>|()]*@(?:[^\s"<>|().]+\.)*[^\s"<>|().]+>?
  | </?[A-Za-z][A-Za-z0-9:.-]*(?:\s[^<>]*)?/?> | <[!?][A-Za-z-][^>]*>
  | @[a-zA-Z]\w* | \#[^\W\d_]\w*
"""
_NUMBERS = r"""
    \d{1,2}[-/]\d{1,2}[-/]\d{2,4}\b
  | \(\d{2,3}\)[ ]?\d{3,4}[- ]?\d{3,5}\b | (?:\d{2,4}[- ])?\d{2,4}[- ]\d{3,4}[- ]?\d{3,5}\b
  | \d{1,4}[ -]\d{1,4}/\d{1,4}(?!\d)
"""
_WORDS = rf"""
    [A-Za-z0-9]+(?:-[A-Za-z]+){{0,2}}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){{0,2}}){{1,2}}
  | {_LETTER}+?(?=n{_APOSTROPHE}t(?!{_WORD})) | n{_APOSTROPHE}t(?!{_WORD})
  | (?:ma{_APOSTROPHE}am|hallowe{_APOSTROPHE}en|xi{_APOSTROPHE}an|li{_APOSTROPHE}l|o{_APOSTROPHE}clock)(?!{_WORD})
  | ol{_APOSTROPHE}(?!{_WORD}) | y{_APOSTROPHE}(?={_LETTER}) | {_APOSTROPHE}n(?:{_APOSTROPHE}|(?!{_WORD}))
  | {_APOSTROPHE}(?:em|til|cause|\d0s)(?!{_WORD}) | 't(?=(?:is|was)(?!{_WORD}))
  | {_APOSTROPHE}(?:[smd]|re|ve|ll)(?!{_WORD})
  | (?:(?<!{_WORD})[dol]{_APOSTROPHE}{_LETTER})?{_WORD}+(?:-(?:[dol]{_APOSTROPHE}{_LETTER})?{_WORD}+)+
  | (?<!{_WORD})(?:[a-hj-z]{_APOSTROPHE}{_LETTER}{{2,}})
  | (?:{"|".join(_SHORT.split())})\.(?!{_LETTER}) | (?-i:{_SHORT_WITH_CAPITAL})\.(?!{_LETTER})
  | (?:{_SHORT_BEFORE_NUMBER})\.(?=\s*\d)
  | [a-z](?:\.[a-z])*\.(?!{_LETTER}) | (?-i:[A-Z]+(?:[&+][A-Z]+)+) | C\+\+ | (?:C|F)\#
  | {_LETTER}{_WORD}*(?:[.!?]{_LETTER}{_WORD}*)* (?:_+{_WORD}+)*
  | [-+]?(?:\d*(?:[.,:]\d+)+) | \d+[^\W\d_]{_WORD}* | [-+]?\d+
"""
_SIGNS = r"""
    [<>]?[:;=][-o*']?[()DPdpOo\\\[\]](?!\w) | \^_\^ | &(?:amp|lt|gt|quot|apos);
  | (?-i:[A-Z]*\$) | \#+ | \*+ | _{2,} | @{2,} | [!?]+ | -{5,} | -{1,4} | \.{3,} | \.[ ]\.[ ]\.
  | [–—―‒\x96\x97] | ''|``
  | [^\w\s\x00-\x1f\x7f\u200b-\u200f\U00010000-\U0010ffff] | [_²³¹¼-¾⁰-₟⅐-⅟]
"""
_TOKEN = re.compile(f"{_ADDRESS}|{_NUMBERS}|{_WORDS}|{_SIGNS}", re.VERBOSE | re.IGNORECASE)

_SIGN_NAMES = {
    **dict.fromkeys("'’‘‛\x91\x92‹›", "'"),
    **dict.fromkeys([*'"“”„«»\x93\x94', "&quot;"], "''"),
    **dict.fromkeys("–—―‒\x96\x97", "--"),
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"£": "#", "€": "$", "¢": "cents", "…": "...", "&amp;": "&", "&lt;": "<", "&gt;": ">"},
    **{f"’{end}": f"'{end}" for end in ("s", "m", "d", "re", "ve", "ll")},
    "n’t": "n't",
    **dict.fromkeys(["---", "----"], "--"),
    **dict.fromkeys(["....", ".....", "......", ". . ."], "..."),
    **{"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
}
# Two words that are written as one.
_JOINED = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "lemme": ("lem", "me"),
    "gimme": ("gim", "me"),
}
_INSIDE = str.maketrans({"(": "-lrb-", ")": "-rrb-", " ": "\xa0"})


def fallback_tokens(line: str) -> list[str]:
    """Return the tokens in lower case, punctuation among them."""
    tokens: list[str] = []
    for found in _TOKEN.finditer(line.replace("\xad", "").replace("\xa0", " ")):
        word = found.group().lower()
        tokens += _JOINED.get(word) or (_SIGN_NAMES.get(word) or word.translate(_INSIDE),)
    return tokens
