"""audit: a description that cannot be one does not pass.

The bad ones are what vision models really give: each has the shape of an output in the public
thread that is named beside it, in words of our own.
"""

# ruff: noqa: RUF001 (the texts are in many languages)

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vuemantics_pipeline.analysis.audit import (
    MAX_LENGTH,
    MIN_LENGTH,
    PASS_MARK,
    RULES,
    audit,
    faults,
)

GOOD = (
    "A golden retriever runs along a sandy beach at sunset. Behind it the sea is calm and the "
    "sky glows orange and pink. Two people sit on a blanket in the distance and watch."
)

USEFUL = {
    "English": GOOD,
    "German": "Ein Hund läuft bei Sonnenuntergang am Strand entlang; das Meer dahinter ist ruhig, "
    "und auf einer Wolldecke sitzen zwei Menschen neben einem Strandkorb.",
    "French": "Un chien court le long d'une plage au coucher du soleil ; l'eau est calme, et deux "
    "personnes assises sur une couverture le regardent.",
    "Chinese": "日落时分，一只金毛犬在沙滩上奔跑，身后的大海风平浪静，天空泛着橙色和粉色的光。"
    "远处有两个人坐在毯子上看着它，旁边放着一只装满水果的篮子。",
    "Japanese": "夕暮れの砂浜を一匹の犬が走っている。海は静かで、空は橙色と桃色に輝いている。"
    "遠くでは二人が毛布に座り、波打ち際の犬を眺めながら静かに話している。",
    "Korean": "해 질 녘 모래사장을 골든 리트리버 한 마리가 달리고 있다. 뒤쪽 바다는 잔잔하고 "
    "하늘은 주황빛과 분홍빛으로 물들어 있다. 멀리 두 사람이 담요에 앉아 있다.",
    "Thai": "สุนัขพันธุ์โกลเดนรีทรีฟเวอร์กำลังวิ่งไปตามชายหาดในยามพระอาทิตย์ตกดิน "
    "ทะเลด้านหลังสงบ ท้องฟ้าเป็นสีส้มและสีชมพู มีคนสองคนนั่งอยู่บนผ้าห่ม",
    "Arabic": "كلب ذهبي يجري على شاطئ رملي عند غروب الشمس، والبحر خلفه هادئ والسماء برتقالية "
    "ووردية، وفي البعيد يجلس شخصان على بطانية ويشاهدانه.",
    "Hindi": "सूर्यास्त के समय एक सुनहरा कुत्ता रेतीले समुद्र तट पर दौड़ रहा है। पीछे समुद्र "
    "शांत है और आकाश नारंगी और गुलाबी रंग में चमक रहा है। दूर दो लोग कंबल पर बैठे हैं।",
    "Russian": "Золотистый ретривер бежит по песчаному пляжу на закате. Море за ним спокойно, "
    "небо светится оранжевым и розовым, а вдали на одеяле сидят два человека.",
    "Greek": "Ένας σκύλος τρέχει στην αμμουδιά το ηλιοβασίλεμα. Η θάλασσα είναι ήρεμη και ο "
    "ουρανός λάμπει πορτοκαλί, ενώ δύο άνθρωποι κάθονται σε μια κουβέρτα.",
    "Vietnamese": "Một chú chó vàng chạy dọc bãi cát lúc hoàng hôn. Biển phía sau lặng sóng, bầu "
    "trời rực màu cam và hồng, xa xa có hai người ngồi trên tấm chăn.",
    "numbers": "A street sign reads 'Bahnhofstraße 12-14'. A red tram, number 7, passes at 18:45 "
    "in rain at 4°C; a ticket costs $2.50, and a poster shows 50% off.",
    "a table": "A spreadsheet with 12 columns and 40 rows: 2019, 2020, 2021, 2022, 2023 and 2024 "
    "sales by region, in euros.",
    "words said twice": "The picture is black and white; it is very, very dark, and a long, long "
    "road leads uphill past a house, a house that nobody lives in.",
    "brand names": "A MacBook and an iPhone lie beside a McDonald's bag; on the screen a YouTube "
    "video of a PlayStation game is paused, and a can of 7Up stands on the desk.",
    "a sign in four languages": "An airport sign says 'Exit' with an arrow, and below it 出口 and "
    "выход and خروج in smaller letters. Travellers with suitcases pass under it.",
    "a sign that begs": "A handwritten note on a shop door reads: 'Sorry, we are closed. Please "
    "provide your own bags, as an exception.' A cat sleeps on the mat below.",
    "parts alike": "A bride in white stands on the left. A groom in black stands on the right. "
    "Behind them guests throw rice, and a violinist plays under a tree.",
}

# The rule that refuses it, the thread, and the output.
BAD = [
    # moondream answers nothing at all, or a line break: valentinfrlch/ha-llmvision#201,
    # ollama/ollama#4063.
    ("empty", ""),
    ("empty", "\n"),
    ("empty", "..."),
    # Qwen2.5-VL on llama.cpp: ggml-org/llama.cpp#23608.
    ("too short", "The\n\n !***"),
    # A caption as short as a file name: dbuytaert/image-caption#1 has better ones.
    ("too short", "A street at night."),
    # Qwen3-VL adds a title, keywords, and keywords for them, and does not stop:
    # engeldlgado/toshllm#14. (The text is made by `prose` below.)
    # open-flamingo goes on with the next examples: mlfoundations/open_flamingo#207.
    (
        "control tokens",
        "<image> A photo of two cats on a sofa beside a lamp. <|endofchunk|> <image>",
    ),
    # Qwen2-VL marks what it found: likaixin2000/ScreenSpot-Pro-GUI-Grounding#7.
    ("control tokens", f"<|object_ref_start|>a dog<|object_ref_end|><|box_start|> {GOOD}"),
    ("control tokens", f"{GOOD}<|im_end|>\n<|im_start|>assistant"),
    # medgemma thinks aloud: ollama/ollama#15754. Kimi-VL does it its own way:
    # MoonshotAI/Kimi-VL#45.
    ("control tokens", f"<unused94>thought\nThe user wants a description.\n{GOOD}"),
    ("control tokens", f"◁think▷ The user wants a description. ◁/think▷ {GOOD}"),
    # The place of the picture is taken for text: stavsap/comfyui-ollama#57.
    ("control tokens", f"The message contains [img-0], which is a picture. {GOOD}"),
    # Qwen2.5-VL-7B: QwenLM/Qwen3-VL#759.
    ("control tokens", f"addCriterion\n{GOOD}"),
    ("control tokens", f"[INST] {GOOD} [/INST]"),
    ("control tokens", f"{GOOD}</s>"),
    # Exclamation marks only: zai-org/GLM-V#153, vllm-project/vllm-ascend#5745. With Qwen2 on Ollama
    # it was the letter G: QwenLM/Qwen3#485. DeepSeek-VL2 fell into nines:
    # deepseek-ai/DeepSeek-VL2#96.
    ("character soup", "!" * 500),
    ("character soup", "G" * 500),
    ("character soup", f"{GOOD} The number on its side is {'9' * 300}"),
    # Characters that are broken: sgl-project/sglang#4774.
    ("character soup", f"{GOOD} \ufffd\ufffd\ufffd \ufffd"),
    ("character soup", "asdkjhqwe" * 20),
    # LLaVA 1.6 says one sentence until it must stop: haotian-liu/LLaVA#1086; InternLM's captioner
    # too: ShareGPT4Omni/ShareGPT4V#12.
    (
        "loop",
        "A grid of numbers is shown. " + "The next row, which is empty, follows the last. " * 9,
    ),
    # Half good, and then a loop: ggml-org/llama.cpp#26652.
    ("loop", GOOD + " The dog wears a red collar, and the collar has a small bell." * 6),
    # Two characters: ollama/ollama#10767.
    ("loop", "夕暮れの砂浜を一匹の犬が走っているのですが、海は静かで空は赤いのです" + "よね" * 12),
    # One word: ggml-org/llama.cpp#23608.
    ("loop", "A photo of of of of of of of of of of is is is is is is is is is is is is is"),
    # A number that counts up while the rest stays: QwenLM/Qwen2.5-Omni#225.
    ("loop", "".join(f"The man in the suit says: {n} % repaired. " for n in range(5, 100, 5))),
    ("loop", "".join(f"系统的修复进度是{n}%，穿西装的男人看着屏幕。" for n in range(5, 100, 5))),
    # The keywords of ollama/ollama#11452 and the bars of QwenLM/Qwen3-VL#1611.
    ("loop", "Tokens of a text run through a pipeline:\n" + "|            |\n" * 30),
    # llava-cli: the commonest words and letters, thrown about: ggml-org/llama.cpp#6944.
    (
        "not a language",
        "to a of,, is and t in. in is, d s the to and,, h a to is on t.. for m has d, a. is,, he "
        "un b to a st and # r. d is t n the with, l to.' of the is r and t a in, re is d s a",
    ),
    (
        "not a language",
        "â }` on }`RESS, and thus,uminate, whereas, }` }`raint, but, }`, }`ioned, while, }` "
        "}`RESS, hence, }`ktion, }`RESS,uminate,オ, }`ività,RESS,ício, }`derr, and",
    ),
    # Llama 3 and Qwen2.5-VL: scripts and code at random: meta-llama/llama3#360,
    # QwenLM/Qwen3-VL#1190, verl-project/verl#2710.
    (
        "not a language",
        "Kaiser muteけ .JComboBox219 names своим _EditPressure passphrase ServletExc gadgets Url "
        "наличен        appro样(sheet crown +' mouse recalled\tTest sor での (&theme.over átek",
    ),
    (
        "not a language",
        "お願いことがある الكله движение 한국어 base our solution 从来没有 çözüm of พวกเขา and "
        "fall 오늘입니다 đã on have ситуация their parameter 가치 seعودة anything บันทึก",
    ),
    (
        "not a language",
        "0 1 2 3 4 5 6 7 8 9 3 1 4 1 5 9 2 6 5 3 5 8 9 7 and so on to the end of it",
    ),
    # moondream gives the corners of a box: ollama/ollama#6365.
    ("data, not prose", "[0.0, 0.12, 0.99, 0.87]"),
    # Qwen2.5-VL was trained to: Liuziyu77/Visual-RFT#29, QwenLM/Qwen3-VL#1137.
    ("data, not prose", "[{'bbox_2d': [608, 446, 636, 476], 'label': 'a person on a platform'}]"),
    ("data, not prose", f'```json\n{{"description": "{GOOD}", "tags": ["dog", "beach"]}}\n```'),
    ("data, not prose", f"{GOOD} The dog is at [12, 44, 310, 280] and the sea at [0, 0, 640, 90]."),
    # Models that got no picture, or think so: stavsap/comfyui-ollama#57 and #76, 0xfrankz/Kaas#1,
    # kantan-kanto/ComfyUI-LLM-Session#8.
    ("refusal", "I'm happy to help, but there is no picture in your message that I could look at."),
    ("refusal", "I don't see an image. Describe it to me in words, and we can talk about it then."),
    (
        "refusal",
        "I cannot see images directly. Tell me what it shows, and I will help you with it.",
    ),
    (
        "refusal",
        "Please provide the image you would like me to describe, and I will begin with it.",
    ),
    (
        "refusal",
        "This picture cannot be opened, since I’m a large language model without any eyes.",
    ),
    # Models that will not: LLaVA-VL/LLaVA-NeXT#158; in Portuguese: haotian-liu/LLaVA#1900; in
    # Chinese: QwenLM/Qwen3-VL#759.
    ("refusal", "I'm sorry, but I can't assist with this request about the people in the picture."),
    (
        "refusal",
        "Desculpe, mas com este pedido sobre a imagem eu não posso ajudar de forma alguma.",
    ),
    (
        "refusal",
        "对不起，我无法理解您给我的信息。请您再提供一些别的信息，这样我才可以更好地帮助您，"
        "例如这张图片是在什么地方拍的。",
    ),
    ("refusal", "As an AI, I have no opinion about the persons who may be shown in this picture."),
]


def prose(length: int) -> str:
    """Words in no order, parted into sentences: nothing is wrong with it but its length."""
    words = ["dog", "sea", "old", "runs", "boat", "cloud", "green", "table", "seven", "people"]
    numbers = random.Random(1)
    text = ""
    while len(text) < length:
        some = [numbers.choice(words) + numbers.choice("aeiou") for _ in range(9)]
        text += " ".join(some).capitalize() + ". "
    return text


@pytest.mark.parametrize("description", USEFUL.values(), ids=USEFUL.keys())
def test_a_useful_description_passes(description: str) -> None:
    assert faults(description) == []
    assert audit(description) == 100


@pytest.mark.parametrize(
    ("rule", "output"), [*BAD, ("too long", prose(MAX_LENGTH + 1))], ids=lambda some: some[:40]
)
def test_what_models_get_wrong_does_not_pass(rule: str, output: str) -> None:
    assert rule in faults(output)
    assert audit(output) < PASS_MARK


def test_every_rule_has_its_bad_output() -> None:
    assert {rule for rule, _ in BAD} | {"too long"} == {rule.name for rule in RULES}


def test_each_rule_refuses_alone() -> None:
    assert all(100 - rule.points < PASS_MARK for rule in RULES)
    for rule, output in [*BAD, ("too long", prose(MAX_LENGTH + 1))]:
        if faults(output) == [rule]:
            (points,) = [some.points for some in RULES if some.name == rule]
            assert audit(output) == 100 - points
    alone = {rule for rule, output in BAD if faults(output) == [rule]}
    assert alone >= {rule.name for rule in RULES} - {"empty", "too long"}


def test_nothing_scores_nothing() -> None:
    assert audit("") == 0
    assert audit("   \n\t ") == 0


@pytest.mark.parametrize(
    ("length", "rules"),
    [
        (MIN_LENGTH - 1, ["too short"]),
        (MIN_LENGTH, []),
        (MAX_LENGTH, []),
        (MAX_LENGTH + 1, ["too long"]),
    ],
)
def test_the_limits_of_length(length: int, rules: list[str]) -> None:
    """White space around a description is no part of it."""
    text = prose(length)[: length - 1].strip(". ")
    text += "x" * (length - len(text))

    assert faults(f"  {text}\n") == rules


def test_more_faults_score_less() -> None:
    """So that the better of two bad answers can be told."""
    assert 0 < audit(f"{GOOD}</s>") < audit(GOOD)
    assert audit("A dog.</s>") < audit("A dog.")


any_text = st.text() | st.text("ab !.\n1犬{[<|>") | st.from_regex(r"(\w{1,5}[ ,.]){0,60}")


@given(any_text, st.integers(1, 40))
@example("\ud800", 1)
@example("\x00", 60)
@example("<think>", 9)
def test_any_text_has_a_score(part: str, times: int) -> None:
    text = part * times

    assert 0 <= audit(text) <= 100
    assert (audit(text) == 100) == (faults(text) == [])
    assert audit(text) == audit(f" {text}\n")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part",
    [
        "a",
        "!",
        " ",
        ".",
        "a ",
        "ab-",
        "<|a",
        "[1",
        "[1, ",
        "[1,1,1,",
        "1",
        "1,",
        "x'",
        "`",
        "I am ",
        "\u0301",
        "犬",
        "{[",
        "a" * 44 + " ",
        "abcdefghijklmnopqrstuvwxyz0123456789" * 2,
        "\ufdfa",
    ],
)
@pytest.mark.parametrize("end", ["", "x", "!"])
def test_any_text_is_judged_in_time_proportional_to_its_length(part: str, end: str) -> None:
    """Whatever takes the square of it would need hours here."""
    length = 200_000

    assert 0 <= audit(part * (length // len(part)) + end) < PASS_MARK
