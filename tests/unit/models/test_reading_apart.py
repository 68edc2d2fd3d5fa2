"""Which rows of a batch are read together, and how they are put together again."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from sightline.models.cache import JoinedLayer, RoomyLayer
from sightline.models.reading_apart import parts_of, rows_of


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=20), st.integers(1, 10**10))
def test_every_row_is_read_once_and_large_parts_have_one_length(lengths, parameters):
    parts = parts_of(lengths, parameters)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    for part in parts[:-1]:
        assert len({lengths[row] for row in part}) == 1
        assert sum(lengths[row] for row in part) >= 512


def test_a_small_model_reads_its_batch_in_one_pass():
    assert parts_of([90, 91, 90, 95] * 4, 1_600_000) == [list(range(16))]


def test_rows_leave_the_padding_they_share_behind():
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]])
    inputs = {
        "input_ids": torch.arange(12).reshape(3, 4),
        "attention_mask": mask,
        "pixel_values": torch.arange(6.0)[:, None],
    }
    found = rows_of(inputs, [0, 2], images=2)
    assert found["input_ids"].tolist() == [[2, 3], [10, 11]]
    assert found["attention_mask"].tolist() == [[1, 1], [1, 1]]
    assert found["pixel_values"][:, 0].tolist() == [0, 1, 4, 5]
    assert rows_of({**inputs, "tiles": torch.zeros(7, 2)}, [0, 2], images=2) is None


def test_patches_belong_to_the_pictures_whose_grids_they_fill():
    inputs = {
        "input_ids": torch.ones(2, 3, dtype=torch.long),
        "attention_mask": torch.ones(2, 3, dtype=torch.long),
        "pixel_values": torch.arange(10.0)[:, None],
        "image_grid_thw": torch.tensor([[1, 2, 3], [1, 2, 2]]),
    }
    found = rows_of(inputs, [1], images=1)
    assert found["pixel_values"][:, 0].tolist() == [6, 7, 8, 9]
    assert found["image_grid_thw"].tolist() == [[1, 2, 2]]


def test_joined_rows_are_padded_on_the_left_and_can_grow():
    layers = []
    for rows, length in ((2, 3), (1, 5)):
        layer = DynamicLayer()
        states = torch.arange(rows * 2 * length * 4.0).reshape(rows, 2, length, 4) + 1
        layer.update(states, -states)
        layers.append(layer)
    joined = JoinedLayer(layers, [(0, 1), (1, 0), (0, 0)])
    grown = RoomyLayer(joined, torch.tensor([0, 1, 1]), room=2)
    assert grown.keys.shape == (3, 2, 5, 4)
    assert (grown.keys[0, :, :2] == 0).all()
    assert torch.equal(grown.keys[0, :, 2:], layers[0].keys[1])
    assert torch.equal(grown.values[2], layers[1].values[0])
    keys, values = grown.update(torch.full((3, 2, 1, 4), 7.0), torch.full((3, 2, 1, 4), 8.0))
    assert keys.shape == (3, 2, 6, 4)
    assert (keys[:, :, -1] == 7).all()
    assert (values[:, :, -1] == 8).all()
    assert torch.equal(layers[1].values[0], grown.values[1][:, :5]), "what is copied stays as it is"
