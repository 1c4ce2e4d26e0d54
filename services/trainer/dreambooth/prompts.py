"""The prompt of each training image, from its file name and caption. A pure function of both and the recipe.

The rule is that of the two-stage notebook flow: the file name without its extension loses digits, "(", ")" and "-",
and "_" becomes a space; the caption, if wanted, follows after a space. An instance prompt replaces the file name.
"""

from dreambooth.recipe import Recipe

_DROPPED = str.maketrans("", "", "()-")


def words_of(filename: str) -> str:
    """The words a file name holds: "sks_toy (12).png" gives "sks toy", "12.png" gives ""."""
    stem = filename.rsplit(".", 1)[0]
    letters = "".join(character for character in stem if not character.isdigit())
    return " ".join(letters.translate(_DROPPED).replace("_", " ").split())


def prompt_of(filename: str, caption: str | None, recipe: Recipe) -> str:
    """The prompt to train this image with; empty if the recipe leaves it without any word."""
    words = recipe.instance_prompt or words_of(filename)
    appended = (caption or "") if recipe.use_captions else ""
    return " ".join(f"{words} {appended}".split())
