"""Sentences to compare engines on, one in each language that Suno's Bark speaks."""

from dataclasses import dataclass

from barkfast.errors import InputError
from barkfast.text import SPECIAL_TOKENS, Tokenizer


@dataclass(frozen=True)
class Prompt:
    """One sentence.

    Args:
        code: of its language, as in the names of Suno's voices.
    """

    code: str
    language: str
    text: str

    @property
    def voice(self) -> str:
        """The name of a voice that speaks the language."""
        return f"v2/{self.code}_speaker_6"


PROMPTS = (
    Prompt("en", "English", "We missed the last train, so we walked home along the river in the rain."),
    Prompt("de", "German", "Am Sonntag backt meine Großmutter einen Kuchen mit frischen Äpfeln aus dem Garten."),
    Prompt("es", "Spanish", "Mañana por la tarde iremos al mercado a comprar pan, queso y unas naranjas."),
    Prompt("fr", "French", "Le chat dort près de la fenêtre pendant que la neige tombe sur le village."),
    Prompt("hi", "Hindi", "आज सुबह मैंने बगीचे में एक छोटी नीली चिड़िया देखी।"),
    Prompt("it", "Italian", "Dopo cena abbiamo ascoltato vecchie canzoni e riso fino a mezzanotte."),
    Prompt("ja", "Japanese", "明日の朝は早く起きて、海まで散歩に行きましょう。"),
    Prompt("ko", "Korean", "어제 저녁에 친구와 함께 따뜻한 국수를 먹었어요."),
    Prompt("pl", "Polish", "Jutro rano pojedziemy pociągiem w góry, jeśli będzie ładna pogoda."),
    Prompt("pt", "Portuguese", "A minha irmã comprou uma bicicleta vermelha e já não anda de autocarro."),
    Prompt("ru", "Russian", "Вечером мы сидели у костра и рассказывали друг другу смешные истории."),
    Prompt("tr", "Turkish", "Bu sabah pazardan taze ekmek, zeytin ve biraz da bal aldım."),
    Prompt("zh", "Chinese", "昨天晚上下了一场大雨，今天早上的空气特别清新。"),
)


def choose_prompts(languages: int) -> tuple[Prompt, ...]:
    """The first so many."""
    if not 1 <= languages <= len(PROMPTS):
        raise InputError(f"languages is {languages}; expected 1 to {len(PROMPTS)}")
    return PROMPTS[:languages]


def spelling_tokenizer() -> Tokenizer:
    """A tokenizer that spells every sentence out, for random weights, which bring none and know no language."""
    characters = sorted({character for prompt in PROMPTS for character in prompt.text} - {" "})
    return Tokenizer.from_vocabulary([*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters)], "made up")
