"""How large a model a job may ask a party to hold: bounded by its own settings, whoever proposes it."""

import json

import pytest

EIGHT_LAYERS = """
[model]
layout = "embeddings"
bottom = { kind = "mlp", hidden = [2048, 2048, 2048, 2048, 2048, 2048, 2048, 2048], out = 4 }
[protection]
cut_noise = { method = "none" }
[encryption]"""


def test_a_peer_cannot_choose_a_model_larger_than_a_party_agreed_to_hold(parties, job_spec):
    job = parties[0].submit(job_spec().replace("[encryption]", EIGHT_LAYERS))
    for party in parties:
        ended = party.over(job["id"])
        assert (ended["state"], ended["error"]["code"]) == ("failed", "policy_refused")
        assert ended["error"]["side"] == "feature-party"
        assert not (party.folder / "models" / job["id"]).exists()
    assert "acceptance.maximum_model_bytes" in ended["error"]["message"]
    assert "235" in ended["error"]["message"]  # MB: seven layers of 2048 x 2048 in float64


@pytest.mark.parametrize("rounds", [False, True], ids=["training", "rounds"])
def test_a_proposer_is_refused_its_own_too_large_model_at_once(parties, job_spec, rounds):
    if rounds:
        text = f"""
        job = {{ name = "large", protocol = "rounds", task = "binary" }}
        roster = {{ aggregator = "{parties[0].name}", clients = ["{parties[1].name}"] }}
        model = {{ network = "mlp", hidden = {[2048] * 4}, input_shape = [4096], input_range = [0, 1], label = "y" }}
        train = {{ batch_rows = 64 }}
        rounds = {{ rounds = 1, min_clients = 1 }}
        [data]
        {parties[0].name} = {{ test = "patients" }}
        {parties[1].name} = {{ dataset = "clinic" }}
        """
    else:
        text = job_spec().replace(
            "[encryption]", f'[model]\ntop = {{kind = "mlp", hidden = {json.dumps([2048] * 8)}}}\n[encryption]'
        )
    answer = parties[0].call("POST", "/v1/jobs", json={"spec": text})
    assert (answer.status_code, answer.json()["code"]) == (403, "policy_refused"), answer.text
    assert "acceptance.maximum_model_bytes" in answer.json()["detail"]
