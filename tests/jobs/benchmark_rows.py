"""A row of each published data set, in the columns of its copy on the hub; images are left out, as the reader does."""

from collections.abc import Mapping
from typing import Any

_TEN = ["net", "net", "net", "netting", "net", "mesh", "net", "net", "net", "net"]
_VQAV2 = {
    "question_id": "262148000",
    "image_id": 262148,
    "question": "Where is he looking?",
    "question_type": "none of the above",
    "answer_type": "other",
    "answers": [
        {"answer": answer, "answer_confidence": "yes", "answer_id": place + 1} for place, answer in enumerate(_TEN)
    ],
}
_TEXTVQA = {
    "question_id": "34602",
    "image_id": "003a8ae2ef43b901",
    "question": "What is the brand of this Camera?",
    "answers": ["nous les gosses", "dakota", "clos culombu", "dakota digital", *["dakota"] * 6],
    "ocr_tokens": ["DIGITAL", "dakota"],
}
_DOCVQA = {
    "questionId": "49153",
    "question": "What is the 'actual' value per 1000, during the year 1975?",
    "question_types": ["figure/diagram", "layout"],
    "docId": 14465,
    "ucsf_document_id": "pybv0228",
    "answers": ["0.28"],
}
_INFOVQA = {
    "questionId": "65718",
    "question": "Which social platform has heavy female audience?",
    "answers": ["pinterest"],
    "answer_type": ["single span"],
    "operation/reasoning": ["comparison", "sorting"],
}
_AI2D = {
    "question": "which of these define dairy item",
    "options": ["c", "D", "b", "a"],
    "answer": "1",
}
_SCIENCEQA = {
    "question": "Which of these states is farthest north?",
    "choices": ["West Virginia", "Louisiana", "Arizona", "Oklahoma"],
    "answer": 0,
    "hint": "",
    "grade": "grade2",
    "subject": "social science",
    "topic": "geography",
    "category": "Geography",
}
_MMMU = {
    "id": "validation_Accounting_1",
    "question": "<image 1> Baxter Company has a relevant range of production between 15,000 and 30,000 units.",
    "options": "['$6', '$7', '$8', '$9']",
    "answer": "B",
    "question_type": "multiple-choice",
    "topic_difficulty": "Medium",
}
_MATHVISTA = {
    "pid": "2",
    "question": "What is the age gap between these two people in image?",
    "query": (
        "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at "
        "the end.\nQuestion: What is the age gap between these two people in image? (Unit: years)"
    ),
    "choices": None,
    "unit": "years",
    "precision": None,
    "answer": "22",
    "question_type": "free_form",
    "answer_type": "integer",
    "metadata": {
        "category": "general-vqa",
        "context": "natural image",
        "grade": "daily life",
        "language": "english",
        "skills": ["numeric commonsense", "arithmetic reasoning"],
        "source": "KVQA",
        "split": "testmini",
        "task": "visual question answering",
    },
}
_MMBENCH = {
    "index": "1000241",
    "question": "Which is the main topic of the image?",
    "hint": "nan",
    "answer": "C",
    "A": "Drinking coffee",
    "B": "A man surfing",
    "C": "Driving buses",
    "D": "nan",
    "category": "image_topic",
    "L2-category": "coarse_perception",
    "source": "internet",
    "split": "dev",
}
_MMBENCH_V11 = {
    "index": "241",
    "question": "Which is the main topic of the image?",
    "hint": "A street.",
    "answer": "B",
    "A": "Drinking coffee",
    "B": "Driving buses",
    "C": "A man surfing",
    "D": "",
    "category": "image_topic",
    "l2-category": "coarse_perception",
    "split": "dev",
}
_LONGVIDEOBENCH = {
    "id": "86CxyhFV9MI_0",
    "video_id": "86CxyhFV9MI",
    "video_path": "86CxyhFV9MI.mp4",
    "question": "What does the woman with the yellow bag do?",
    "option0": "Turns off the light",
    "option1": "Flips her hair",
    "option2": "Puts on a hat",
    "option3": "Sits down",
    "option4": "N/A",
    "correct_choice": 1,
    "duration_group": 15,
    "question_category": "T2A",
    "duration": 10.0,
    "starting_timestamp_for_subtitles": 60.0,
    "frame_times": [1.25, 3.75, 6.25, 8.75],
    "subtitles": (
        '[{"timestamp": [61.0, 64.5], "text": "Good evening."}, {"timestamp": [64.5, 64.9], "text": "Too short."},'
        ' {"timestamp": [66.0, null], "text": "To the end."}]'
    ),
}
_MMLU = {
    "question": "Find the degree for the given field extension Q(sqrt(2)) over Q.",
    "subject": "abstract_algebra",
    "choices": ["0", "4", "2", "6"],
    "answer": 2,
}
_EXAMPLE = {"question": "What is 1 + 1 in Z_2?", "choices": ["0", "1", "2", "3"], "answer": 0}
_ARC = {
    "id": "MCAS_2000_4_6",
    "question": "Which technology was developed most recently?",
    "choices": {
        "text": ["cellular telephone", "television", "refrigerator", "airplane"],
        "label": ["1", "2", "3", "4"],
    },
    "answerKey": "1",
}
_HIDDEN = {"answers": None}

ROWS: Mapping[str, Mapping[str, Any]] = {
    "vqav2_val": _VQAV2,
    "vqav2_testdev": {**_VQAV2, **_HIDDEN, "question_type": None, "answer_type": None},
    "vqav2_test": {**_VQAV2, **_HIDDEN, "question_type": None, "answer_type": None},
    "gqa": {
        "id": "201307251",
        "imageId": "n161313",
        "question": "Is it overcast?",
        "answer": "no",
        "isBalanced": True,
        "types": {"structural": "verify", "semantic": "global", "detailed": "weatherVerify"},
    },
    "ok_vqa": {
        "question_id": "2971475",
        "question": "What sport can you use this for?",
        "answers": [*["race"] * 4, *["motocross"] * 4, *["ride"] * 2],
        "question_type": "one",
        "answer_type": "other",
    },
    "textvqa_val": _TEXTVQA,
    "textvqa_test": {**_TEXTVQA, "answers": [""] * 10},
    "textvqa_val_ocr": _TEXTVQA,
    "docvqa_val": _DOCVQA,
    "docvqa_test": {**_DOCVQA, **_HIDDEN, "question_types": None},
    "infovqa_val": _INFOVQA,
    "infovqa_test": {**_INFOVQA, **_HIDDEN, "answer_type": None, "operation/reasoning": None},
    "chartqa": {"type": "human_test", "question": "How many food items are shown in the bar graph?", "answer": "14"},
    "pope": {
        "id": "0",
        "question": "Is there a snowboard in the image?",
        "answer": "yes",
        "image_source": "COCO_val2014_000000310196",
        "category": "adversarial",
    },
    "ocrbench": {
        "dataset": "IIIT5K",
        "question": "what is written in the image?",
        "question_type": "Regular Text Recognition",
        "answer": ["CENTRE"],
    },
    "ai2d": _AI2D,
    "ai2d_no_mask": {**_AI2D, "options": ["milk", "bread", "egg", "corn"], "answer": "0"},
    "scienceqa_img": _SCIENCEQA,
    "scienceqa_full": {**_SCIENCEQA, "hint": "The passage below describes an experiment.", "grade": "grade8"},
    "mmmu_val": _MMMU,
    "mmmu_test": {**_MMMU, "id": "test_Art_Theory_7", "answer": "?"},
    "mathvista_testmini": _MATHVISTA,
    "mathvista_test": {**_MATHVISTA, "answer": None},
    "mmbench_en_dev": _MMBENCH,
    "mmbench_en_test": {**_MMBENCH, "answer": "nan", "split": "test"},
    "mmbench_cn_dev": {**_MMBENCH, "question": "图片的主题是什么？"},
    "mmbench_cn_test": {**_MMBENCH, "question": "图片的主题是什么？", "answer": None, "split": "test"},
    "mmbench_dev_en_v11": _MMBENCH_V11,
    "mmbench_test_en_v11": {**_MMBENCH_V11, "answer": "", "split": "test"},
    "mmbench_dev_cn_v11": _MMBENCH_V11,
    "mmbench_test_cn_v11": {**_MMBENCH_V11, "answer": "", "split": "test"},
    "realworldqa": {
        "question": (
            "In which direction is the front wheel of the car on the right side facing?\n\nA. Left\nB. Straight\n"
            "C. Right\nPlease answer directly with only the letter of the correct option and nothing else."
        ),
        "answer": "C",
    },
    "mmstar": {
        "index": "0",
        "question": (
            "Which option describe the object relationship in the image correctly?\nOptions: A: The suitcase is on the "
            "book., B: The suitcase is beneath the cat., C: The suitcase is beneath the bed., D: The suitcase is "
            "beneath the book."
        ),
        "answer": "A",
        "category": "coarse perception",
        "l2_category": "image scene and topic",
    },
    "longvideobench_val": _LONGVIDEOBENCH,
    "longvideobench_test": {**_LONGVIDEOBENCH, "correct_choice": -1},
    "coco_caption": {
        "question_id": "COCO_val2014_000000203564.jpg",
        "answer": ["A bicycle replica with a clock as the front wheel.", "The bike has a clock as a tire."],
    },
    "coco_karpathy": {
        "filename": "COCO_val2014_000000391895.jpg",
        "sentences": ["A man with a red helmet on a small moped on a dirt road."],
    },
    "nocaps": {
        "image_id": "0",
        "annotations_captions": ["A baby is standing in front of a house."],
        "image_domain": "in-domain",
    },
    "flickr30k": {"img_id": "0", "caption": ["Two young guys with shaggy hair look at their hands."]},
    "textcaps": {"image_id": "003a8ae2ef43b901", "caption_str": ["A silver camera is called Dakota Digital."]},
    "mmlu": {**_MMLU, "examples": [_EXAMPLE] * 5},
    "mmlu_without_examples": _MMLU,
    "arc_challenge": _ARC,
    "arc_challenge_continued": _ARC,
    "math": {
        "problem": "What is $\\frac{1}{2} + \\frac{1}{4}$?",
        "level": "Level 1",
        "type": "Prealgebra",
        "solution": "We have $\\frac24 + \\frac14 = \\boxed{\\frac{3}{4}}$.",
    },
    "humaneval": {
        "task_id": "HumanEval/53",
        "prompt": 'def add(x: int, y: int):\n    """Add two numbers x and y\n    """\n',
        "entry_point": "add",
    },
}
