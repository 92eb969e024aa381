"""Contractions that people write without their apostrophe, or with one too few, and what VQA takes them for.

From VQAv2's official evaluation (vqaEval.py, GT-Vision-Lab/VQA a013f00). The gaps are the source's and decide scores:
`its`, `shes`, `lets` and `im` are left alone. Keys with a capital are left out, as words are lower-case by then.
"""

# Each of these is also meant where its apostrophe is missing.
_BARE = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
    it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
    somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
    they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""

# Each of these is also meant where one of its two apostrophes is missing.
_HALF = """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
    there'd've they'd've we'd've who'd've wouldn't've you'd've
"""

CONTRACTIONS = {
    **{whole.replace("'", ""): whole for whole in _BARE.split()},
    **{whole.replace("'", "", 1): whole for whole in _HALF.split()},
    **{"".join(whole.rsplit("'", 1)): whole for whole in _HALF.split()},
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    # The one that loses its apostrophe instead.
    "somebody'd": "somebodyd",
}
