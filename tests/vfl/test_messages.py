"""The wire is frozen: one golden encoding per message. Changed bytes are a decision and raise the wire version."""

import msgspec
import pytest

from vfl import alignment_messages, messages, one_pass_messages, paillier_messages
from vfl.errors import RemoteProtocolError
from vfl.message import MESSAGES, decode, encode
from vfl.routes import ONLY_EMBEDDINGS, ROUTES
from vfl.spec.joined_rows import TrainingRole

GOLDEN = {
    messages.RowsDigest(2, b"d"): "83a474797065aa526f7773446967657374a4726f777302a6646967657374c40164",
    messages.HeldOut(b"v"): "82a474797065a748656c644f7574a4726f7773c40176",
    messages.Embedding(1, b"v"): "83a474797065a9456d62656464696e67a47374657001a676616c756573c40176",
    messages.CutGradient(1, b"v"): "83a474797065ab4375744772616469656e74a47374657001a676616c756573c40176",
    messages.EncryptedError(1, b"b", b"c"): (
        "84a474797065ae456e637279707465644572726f72a47374657001a56261736973c40162a7636f6c756d6e73c40163"
    ),
    messages.StepApplied(1): "82a474797065ab537465704170706c696564a47374657001",
    messages.EvaluationRows(b"v"): "82a474797065ae4576616c756174696f6e526f7773a676616c756573c40176",
    messages.PublicKeys(b"p", b"r", b"k"): (
        "84a474797065aa5075626c69634b657973a67075626c6963c40170ab72656c696e656172697365c40172a77061636b696e67c4016b"
    ),
    messages.EncryptedEmbedding(1, b"c"): (
        "83a474797065b2456e63727970746564456d62656464696e67a47374657001a7636f6c756d6e73c40163"
    ),
    messages.MaskedGradient(1, b"p", b"m"): (
        "84a474797065ae4d61736b65644772616469656e74a47374657001a67061636b6564c40170a66d61736b6564c4016d"
    ),
    messages.OpenedGradient(1, b"v"): "83a474797065ae4f70656e65644772616469656e74a47374657001a676616c756573c40176",
    messages.OpenedLoss(1, b"v"): "83a474797065aa4f70656e65644c6f7373a47374657001a676616c756573c40176",
    messages.EpochJudged(2, 1, True): (
        "84a474797065ab45706f63684a7564676564a47374657002a46265737401a7676f65735f6f6ec3"
    ),
    messages.EncryptedWeights(b"p", b"w"): (
        "83a474797065b0456e6372797074656457656967687473a67075626c6963c40170a777656967687473c40177"
    ),
    messages.RowsToScore(1, b"r"): "83a474797065ab526f7773546f53636f7265a47374657001a4726f7773c40172",
    messages.SessionOver(): "81a474797065ab53657373696f6e4f766572",
    messages.EncryptedScores(1, b"p", b"c"): (
        "84a474797065af456e6372797074656453636f726573a47374657001ab706f6c796e6f6d69616c73c40170ac636f656666696369656e7473c40163"
    ),
    messages.EncryptedSlopes(1, b"s"): ("83a474797065af456e63727970746564536c6f706573a47374657001a6736c6f706573c40173"),
    messages.SharedRows(
        1, b"i", b"l"
    ): "84a474797065aa536861726564526f7773a4726f777301a6696e70757473c40169a66c6162656c73c4016c",
    messages.EvaluationTask(1, b"d", b"p"): (
        "84a474797065ae4576616c756174696f6e5461736ba5726f756e6401ac6d6f64656c5f646967657374c40164aa706172616d6574657273c40170"
    ),
    alignment_messages.IdCount(5): "82a474797065a74964436f756e74a369647305",
    alignment_messages.SealedBatch(1, b"d"): "83a474797065ab5365616c65644261746368a5626174636801a6646967657374c40164",
    alignment_messages.BlindedIds(1, b"p"): "83a474797065aa426c696e646564496473a5626174636801a6706f696e7473c40170",
    alignment_messages.DoubleBlindedIds(1, b"p"): (
        "83a474797065b0446f75626c65426c696e646564496473a5626174636801a6706f696e7473c40170"
    ),
    alignment_messages.ShuffledDoubleBlindedIds(1, b"p"): (
        "83a474797065b853687566666c6564446f75626c65426c696e646564496473a5626174636801a6706f696e7473c40170"
    ),
    alignment_messages.CommonDigest(b"d"): "82a474797065ac436f6d6d6f6e446967657374a6646967657374c40164",
    alignment_messages.PartySizes((1, 2)): "82a474797065aa506172747953697a6573a3696473920102",
    alignment_messages.BlindedList(
        1, 2, b"p"
    ): "84a474797065ab426c696e6465644c697374a36c617001a5626174636802a6706f696e7473c40170",
    alignment_messages.ListToBlind(
        1, 2, b"p"
    ): "84a474797065ab4c697374546f426c696e64a36c617001a5626174636802a6706f696e7473c40170",
    alignment_messages.CommonPlaces(
        b"p", b"d"
    ): "83a474797065ac436f6d6d6f6e506c61636573a6706c61636573c40170a6646967657374c40164",
    alignment_messages.WhichPlaces(b"p"): "82a474797065ab5768696368506c61636573a6706c61636573c40170",
    alignment_messages.PlacesBefore(b"p"): "82a474797065ac506c616365734265666f7265a6706c61636573c40170",
    alignment_messages.CommonCount(3): "82a474797065ab436f6d6d6f6e436f756e74a369647303",
    paillier_messages.PaillierKey(b"m", b"p"): (
        "83a474797065ab5061696c6c6965724b6579a76d6f64756c7573c4016da570726f6f66c40170"
    ),
    paillier_messages.EncryptedRows(1, b"r"): "83a474797065ad456e63727970746564526f7773a47374657001a4726f7773c40172",
    paillier_messages.EncryptedMoments(1, b"m"): (
        "83a474797065b0456e637279707465644d6f6d656e7473a47374657001a76d6f6d656e7473c4016d"
    ),
    paillier_messages.MaskedNumbers(
        1, b"m"
    ): "83a474797065ad4d61736b65644e756d62657273a47374657001a66d61736b6564c4016d",
    paillier_messages.OpenedSums(1, b"v"): "83a474797065aa4f70656e656453756d73a47374657001a676616c756573c40176",
    paillier_messages.EncryptedColumns(1, b"c"): (
        "83a474797065b0456e63727970746564436f6c756d6e73a47374657001a7636f6c756d6e73c40163"
    ),
    paillier_messages.BlurredScores(
        1, b"v"
    ): "83a474797065ad426c757272656453636f726573a47374657001a676616c756573c40176",
    one_pass_messages.SumsKey(b"p"): "82a474797065a753756d734b6579a67075626c6963c40170",
    one_pass_messages.EncryptedBlocks(1, (b"b",)): (
        "83a474797065af456e63727970746564426c6f636b73a47374657001a6626c6f636b7391c40162"
    ),
    one_pass_messages.SumsOverRows(1, b"p", b"w", b"o"): (
        "85a474797065ac53756d734f766572526f7773a47374657001ab706f6c796e6f6d69616c73c40170a5776f726473c40177a36f776ec4016f"
    ),
    messages.ClientReady(b"d"): "82a474797065ab436c69656e745265616479af6261636b626f6e655f646967657374c40164",
    messages.ColumnScaling(b"m", b"d"): (
        "83a474797065ad436f6c756d6e5363616c696e67a56d65616e73c4016daa646576696174696f6e73c40164"
    ),
    messages.RoundTask(1, b"d", b"p", 0.5, 2, 4, b"b", b"h"): (
        "89a474797065a9526f756e645461736ba5726f756e6401ac6d6f64656c5f646967657374c40164aa706172616d6574657273c40170"
        "a472617465cb3fe0000000000000a665706f63687302aa7265706c795f6269747304a86261636b626f6e65c40162af6261636b626f"
        "6e655f646967657374c40168"
    ),
    messages.RoundReply(1, b"p", 3, 0.5, b"h"): (
        "86a474797065aa526f756e645265706c79a5726f756e6401aa706172616d6574657273c40170a4726f777303a46c6f7373cb3fe000"
        "0000000000af6261636b626f6e655f646967657374c40168"
    ),
    messages.Published(1, b"p", b"d", b"b", b"h"): (
        "86a474797065a95075626c6973686564a5726f756e6401aa706172616d6574657273c40170ac6d6f64656c5f646967657374c40164"
        "a86261636b626f6e65c40162af6261636b626f6e655f646967657374c40168"
    ),
    messages.SumTask(7, 2, "u", (0.5,)): (
        "85a474797065a753756d5461736ba373756d07a5726f756e6402a7707572706f7365a175a76e756d6265727391cb3fe0000000000000"
    ),
    messages.PairKey(7, b"m", b"s", b"g"): (
        "85a474797065a7506169724b6579a373756d07a76d61736b696e67c4016da77365616c696e67c40173a97369676e6174757265c40167"
    ),
    messages.PairKeys(7, (("a", b"m", b"s", b"g"),)): (
        "83a474797065a8506169724b657973a373756d07a46b6579739194a161c4016dc40173c40167"
    ),
    messages.SealedShares(7, (("a", b"b"),), b"d"): (
        "84a474797065ac5365616c6564536861726573a373756d07a5626f7865739192a161c40162a764696765737473c40164"
    ),
    messages.MaskedReply(7, b"w"): ("83a474797065ab4d61736b65645265706c79a373756d07a5776f726473c40177"),
    messages.UnmaskTask(7, ("a", "b")): ("83a474797065aa556e6d61736b5461736ba373756d07a76172726976656492a161a162"),
    messages.UnmaskShares(7, (("a", b"s"),), (("b", b"k"),)): (
        "84a474797065ac556e6d61736b536861726573a373756d07aa73656c665f6d61736b739192a161c40173ac6d61736b696e675f6b65"
        "79739192a162c4016b"
    ),
}


def test_every_message_has_a_golden_encoding():
    assert {message.kind() for message in GOLDEN} == set(MESSAGES)


@pytest.mark.parametrize("message", GOLDEN, ids=lambda message: message.kind())
def test_a_message_encodes_to_the_frozen_bytes_and_back(message):
    assert encode(message).hex() == GOLDEN[message]
    assert decode("telco", message.kind(), encode(message)) == message


def test_every_message_says_what_it_reveals_and_stands_in_a_route():
    for message in MESSAGES.values():
        assert message.reveals.learns
    routed = {route.message for routes in ROUTES.values() for route in routes}
    assert routed == set(MESSAGES.values())


def test_layout_features_sends_the_feature_party_nothing_that_bears_labels():
    to_feature = {r.message for r in ROUTES["ckks_training"] if r.receiver is TrainingRole.FEATURE}
    to_feature -= ONLY_EMBEDDINGS | {messages.HeldOut, messages.EpochJudged}  # in jobs that ask for it
    assert {message.kind() for message in to_feature} == {
        "RowsDigest",
        "MaskedGradient",
        "EncryptedWeights",
        "EncryptedSlopes",
    }


def test_a_training_on_paillier_ciphertexts_sends_the_feature_party_nothing_that_bears_labels():
    to_feature = {r.message for r in ROUTES["paillier_training"] if r.receiver is TrainingRole.FEATURE}
    assert {message.kind() for message in to_feature} == {"RowsDigest", "HeldOut", "MaskedNumbers"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 20,
        encode(messages.StepApplied(1))[:-1],
        encode(messages.RowsDigest(1, b"")),
        msgspec.msgpack.encode({"type": "StepApplied", "step": 1, "extra": 2}),
        msgspec.msgpack.encode({"type": "StepApplied", "step": "one"}),
        msgspec.msgpack.encode({"type": "StepApplied"}),
    ],
)
def test_a_body_that_is_not_the_named_message_names_its_sender(body):
    with pytest.raises(RemoteProtocolError, match="the StepApplied of telco cannot be read"):
        decode("telco", "StepApplied", body)


def test_an_unknown_kind_names_its_sender():
    with pytest.raises(RemoteProtocolError, match="telco sent a message of the unknown kind 'DecryptThis'"):
        decode("telco", "DecryptThis", b"")
