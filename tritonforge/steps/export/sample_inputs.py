"""Texts and pictures of the kinds that processors go wrong with, to hold a packaged one against its original."""

from __future__ import annotations

import io


def texts(longest: int) -> dict[str, bytes]:
    """Texts by name, as UTF-8; one has more than ``longest`` tokens."""
    found = {
        "sentence": "The quick brown fox jumps over the lazy dog.",
        "empty": "",
        "long": "one word after another " * max(1, longest // 3),
        "spaces": "   two  spaces \t and a tab\n and lines\r\n ",
        "case": "ÀÉÎÕÜ İstanbul straße Grüße naïve",
        "combining": "e\u0301le\u0300ve A\u030angstro\u0308m",
        "japanese": "日本語のテキスト",
        "arabic": "مرحبا بالعالم",
        "emoji": "👩‍🚀 lifts off 🚀🇩🇪",
        "numbers": "3.14159 1,000,000 2e-5 #42 @user https://example.org/a?b=c",
        "marks": "[MASK] <s> </s> [CLS] <|endoftext|>",
        "control": "nul\u0000 bell\u0007 zero\u200bwidth \ufffd",
    }
    return {name: text.encode() for name, text in found.items()}


def pictures() -> dict[str, bytes]:
    """Files of pictures by name: each format and colour mode, odd and extreme sizes, and one that lies on its side."""
    from PIL import Image

    def drawn(width: int, height: int) -> Image.Image:
        across = Image.linear_gradient("L").resize((width, height)).rotate(90)
        down = Image.radial_gradient("L").resize((width, height))
        return Image.merge("RGB", (across, down, Image.linear_gradient("L").resize((width, height))))

    def saved(picture: Image.Image, kind: str, **settings: object) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, kind, **settings)
        return stream.getvalue()

    turned = Image.Exif()
    turned[0x0112] = 6
    grey = drawn(97, 61).convert("L")
    clear = drawn(64, 200).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((64, 200)))
    return {
        "jpeg": saved(drawn(320, 240), "JPEG", quality=90),
        "turned": saved(drawn(200, 120), "JPEG", exif=turned),
        "png": saved(drawn(255, 301), "PNG"),
        "grey": saved(grey, "PNG"),
        "palette": saved(drawn(120, 90).quantize(16), "PNG"),
        "clear": saved(clear, "PNG"),
        "webp": saved(drawn(150, 150), "WEBP", lossless=True),
        "narrow": saved(drawn(7, 400), "PNG"),
        "pixel": saved(drawn(1, 1), "PNG"),
    }
