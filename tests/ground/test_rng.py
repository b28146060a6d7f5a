"""Random streams depend on their address alone."""

import hashlib
import subprocess
import sys

import numpy as np
import scipy

from repast_dist.ground.rng import generator, words


def test_one_address_gives_the_same_numbers_in_another_process():
    code = (
        "from repast_dist.ground.rng import generator;"
        "print(generator(3, 'programming', 7, 'A').standard_normal(4).tolist())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert elsewhere.stdout.strip() == str(
        generator(3, "programming", 7, "A").standard_normal(4).tolist()
    )


def test_addresses_that_only_look_alike_give_different_streams():
    addresses = [(1, 23), (12, 3), ("1", 23), ("12", "3"), ("1|i1:2",), (1,), ("1",), (1, 2, 3)]
    first = [generator(0, *address).random() for address in addresses]
    assert len(set(first)) == len(first)


def test_neighbouring_addresses_are_independent():
    draws = np.array([generator(0, "read", step).standard_normal(50) for step in range(200)])
    correlation = np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]
    assert abs(correlation) < 0.05
    assert scipy.stats.kstest(draws.ravel(), "norm").pvalue > 0.001


def test_the_key_is_the_whole_hash_of_the_address():
    digest = hashlib.blake2b(b"i1:3|s4:read|i1:7", digest_size=16).digest()
    stream = np.random.Philox(key=int.from_bytes(digest, "little"))
    ours = generator(3, "read", 7).bit_generator
    assert ours.random_raw(9).tolist() == stream.random_raw(9).tolist()


def test_words_are_uniform_and_depend_on_the_whole_address():
    drawn = np.array([words(32, 0, "calibration", step) for step in range(500)])
    assert scipy.stats.kstest(drawn.ravel() / 2.0**32, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.05
    assert len({words(2, 0, *address).tobytes() for address in [(1, 23), (12, 3), ("1", 23)]}) == 3
    np.testing.assert_array_equal(words(9, 3, "a")[:4], words(4, 3, "a"))
