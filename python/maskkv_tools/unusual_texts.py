# SPDX-License-Identifier: Apache-2.0
"""Seeded texts that tokenizers disagree about: scripts, white space, digits, emoji, random bytes.

`fixed()` lists the known traps one by one, `random_text(rng)` mixes them. Everything is valid
Unicode without surrogates, so that it has a UTF-8 form.
"""

WORDS = (
    # Latin, with capitals, accents composed and decomposed, ligatures, long s and Kelvin sign
    "the", "The", "QUICK", "fox's", "naïve", "nai\u0308ve", "Straße", "\u017fhip", "\ufb01ne", "\u212aelvin",
    "coöperate", "Đặng", "İstanbul", "\u212bngstro\u0308m", "don't", "DON'T", "we'LL", "they'Ve", "I'M",
    "it'\u017f", "rock'n'roll", "o’clock",
    # Cyrillic, Greek, Armenian, Georgian, Hebrew with points, Arabic with marks and tatweel
    "быстрая", "Ёлка", "йод", "γλῶσσα", "ΣΊΣΥΦΟΣ", "հայերեն", "ქართული",
    "שָׁלוֹם", "עברית", "السَّلَامُ", "مـــرحبا", "فارسی", "اردو‌ہے",
    # Indic with virama and joiners, Thai and Lao and Khmer (no spaces), Tibetan, Burmese, Ethiopic
    "हिन्दी", "क्ष", "क्‍ष", "বাংলা", "தமிழ்", "తెలుగు", "മലയാളം", "ภาษาไทยไม่มีเว้นวรรค",
    "ພາສາລາວ", "ភាសាខ្មែរ", "བོད་སྐད།", "မြန်မာ", "አማርኛ",
    # Chinese, Japanese, Korean composed and as conjoining jamo, half and full width
    "快速的棕色狐狸", "漢字かな交じり文", "カタカナ", "ﾊﾝｶｸ", "ＦＵＬＬ", "한국어", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "㍿", "𠮷野家",
)
SPACES = (
    " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "\r\n\r\n", " \n", "\n ", " \r\n \n",
    "\v", "\f", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u180e", "\u2003", "\u2009", "\u200b",
    "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff", " \xa0 ", "\t \u3000",
)
DIGITS = (
    "0", "7", "42", "1234567890", "3.14159", "1,000,000", "١٢٣", "۴۵۶", "१२३", "๑๒๓", "１２３",
    "½", "²", "Ⅷ", "①", "〇", "𝟘𝟙", "1e-5", "0x1F",
)
MARKS = (
    ".", ",", "!?", "...", "…", "—", "«»", "「」", "'", "''", "'s", "'S", "'ll", "'re", "'x", "`",
    "()", "[]{}", "<|", "|>", "#", "\\n", "//", "/*", "=>", "€", "₿", "±", "∑", "\u0301",
    "\u0316", "\u0301\u0316", "\u200d", "\u200e", "\u202e", "\ufe0f", "\x00", "\x7f", "\ufffd",
    "\U0010ffff",
)
EMOJI = (
    "😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇯🇵🇧🇷", "❤️", "☺", "🧑🏿‍🚀", "1️⃣", "🫠",
)
SPECIAL = ("<|startoftext|>", "<|endoftext|>", "<|eot_id|>", "<|eot_id", "<|im_start|>", "<tool>",
           "<tool><|eot_id|>", "café!", "cafe\u0301!", "<|mdm_mask|>")
KINDS = (WORDS, WORDS, SPACES, SPACES, DIGITS, MARKS, EMOJI, SPECIAL)


def fixed():
    """Every unusual thing alone, between letters, between spaces and doubled."""
    texts = ["", "a", " ", "Hello, world!", " ".join(WORDS), "".join(WORDS), "".join(EMOJI)]
    for thing in (*WORDS, *SPACES, *DIGITS, *MARKS, *EMOJI, *SPECIAL):
        texts += [thing, f"a{thing}b", f" {thing} ", thing * 2 + "\n"]
    texts += [space * n + end for space in (" ", "\t", "\n", "\xa0") for n in (1, 2, 7, 40)
              for end in ("", "x", "1", ".")]
    texts += ["a" * 300, "ab" * 150, " " * 300 + "x", "\n" * 99, "é" * 100, "漢" * 100]
    return texts


def random_code_point(rng):
    """Any scalar value; the planes that hold something are likelier."""
    top = rng.choice((0x80, 0x800, 0x3000, 0x10000, 0x20000, 0x110000))
    while True:
        point = rng.randrange(top)
        if not 0xD800 <= point < 0xE000:
            return chr(point)


def random_text(rng):
    """One text of a kind drawn at random: a mixture, code points, or bytes read as text."""
    kind = rng.randrange(6)
    if kind == 0:
        return "".join(random_code_point(rng) for _ in range(rng.randrange(1, 40)))
    if kind == 1:
        return rng.randbytes(rng.randrange(1, 80)).decode("latin-1")
    if kind == 2:
        return rng.randbytes(rng.randrange(1, 80)).decode("utf-8", errors="replace")
    return "".join(rng.choice(rng.choice(KINDS)) for _ in range(rng.randrange(1, 24)))
