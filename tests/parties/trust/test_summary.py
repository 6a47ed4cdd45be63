"""What an operator reads before deciding: whole sentences with the numbers of the plan, and what is new."""

import msgspec
from alignment_parties import specification as alignment
from proposed_jobs import BANK, TELCO, request, round_request, specification

from parties.trust.budget import charges
from parties.trust.summary import FIRST_JOB, NOTHING_NEW, WIDTH, Terms, differences, summarise


def test_the_summary_says_who_wants_what_of_whose_data_and_who_reads_it() -> None:
    text = summarise(request(), None, {}, 0.05, ["nothing is claimed about a warning"]).text()
    in_one_line = " ".join(text.split())
    for sentence in (
        "bank proposes the job 'scores'.",
        "Nobody else would take part.",
        "Its purpose, in the words of bank: 'credit scores'.",
        "Data set 'calls', whose file has the SHA-256 digest abab",
        "2 columns enter as inputs: 'a', 'b'.",
        "No label of it is used.",
        "bank can read 160 values (OpenedGradient, sum over a batch): noisy sums",
        "bank can read 400 values (EncryptedScores, per row): noisy scores of held-out or new rows.",
        "telco can read 2 values of bank (RowsDigest, whole table)",
        "With this job bank will have used rho 0.025 of 0.05 on the column 'a', which stands highest, and 560 values.",
        "The job takes 10 epochs and 40 steps.",
        "It trains on 1600 of 2000 rows, in batches of at least 400 rows.",
        "bank keeps the top model: all weights that are applied to the columns of every party.",
        "telco keeps no weights, and how its own columns are prepared.",
        "nothing is claimed about a warning",
        FIRST_JOB,
    ):
        assert sentence in in_one_line
    assert max(map(len, text.splitlines())) <= WIDTH


def test_the_summary_is_json_as_well() -> None:
    summary = summarise(request(), None, {}, 0.05)
    sections = msgspec.json.decode(msgspec.json.encode(summary))["sections"]
    assert [section["heading"] for section in sections] == [
        "Who proposes",
        "What is used of the data of telco",
        "What telco reveals",
        "What telco may read",
        "Over all jobs",
        "How long",
        "What each party keeps",
        "Warnings",
        "Since the last job",
    ]
    assert all(section["sentences"] for section in sections)


def test_what_earlier_jobs_have_used_is_added_up() -> None:
    asked = request()
    text = " ".join(summarise(asked, None, charges(asked.budget), 0.05).text().split())
    assert (
        "With this job bank will have used rho 0.05 of 0.05 on the column 'a', which stands highest, and 1120" in text
    )


def test_rounds_tell_in_messages_what_a_client_reveals_at_most() -> None:
    text = " ".join(summarise(round_request(rounds=20), None, {}, 0.05).text().split())
    assert "c1, c2 would take part as well." in text
    assert "hub can read 20 messages, and 25 at most if steps are taken again (RoundReply, whole model)" in text
    assert "c0 keeps the whole shared model, as every party of the job does." in text


def test_the_same_job_again_has_nothing_new() -> None:
    assert differences(Terms.of(request()), request()) == (NOTHING_NEW,)


def test_every_difference_to_the_last_job_is_a_sentence() -> None:
    last = Terms.of(request())
    again = request(specification(epochs=20, columns=["a", "c"], purpose=""), digest="cd" * 32, rows=2500)
    assert differences(last, again) == (
        "The file of the data set 'calls' has changed.",
        "The columns of 'calls': 'c' is new.",
        "The columns of 'calls': 'b' is gone.",
        "job.purpose was 'credit scores', and is now not set.",
        "train.epochs was 10, and is now 20.",
        "The number of rows was 2000, and is now 2500.",
        "The number of steps was 40, and is now 100.",
        "The number of values that telco may reveal was 560, and is now 900.",
        "rho was 0.025, and is now 0.05.",
    )


def test_another_data_set_of_the_owner_and_other_columns_of_a_peer_are_told() -> None:
    told = differences(Terms.of(request()), request(specification(dataset="visits")))
    assert "The data set 'calls' is no longer used." in told
    assert "The data set 'visits' is new." in told
    told = differences(Terms.of(request(me=BANK)), request(specification(columns=["a"]), BANK))
    assert f"data.{TELCO}.columns: 'b' is gone." in told


def test_an_alignment_tells_how_many_ids_the_peer_may_ask_about_and_speaks_of_no_training() -> None:
    text = " ".join(summarise(request(alignment(BANK, TELCO)), None, {}, 0.05).text().split())
    assert "It is a job of the kind 'alignment' and of the scheme 'common_ids'." in text
    assert "Its rows are compared by 'id0'; no other column of it is read." in text
    assert "bank can read 1000000 ids (DoubleBlindedIds, per row): which of its own ids the sender has too." in text
    assert "telco keeps the numbers of its own rows that are common" in text
    assert "train" not in text
    assert "epoch" not in text
