"""
As much of PyTorch as bench/peer/pytorch.py uses, on lists: for tests where PyTorch is not installed. It has a GPU where
STANDIN_CUDA is set.
"""

import os

__version__ = "2.0.0+standin"
float32, float16, bfloat16 = "float32", "float16", "bfloat16"


class Tensor:
    def __init__(self, values):
        self.values = values

    def __getitem__(self, index):
        values = self.values
        for i in index if isinstance(index, tuple) else (index,):
            values = values[i]
        return Tensor(values)

    @property
    def shape(self):
        shape, values = [], self.values
        while isinstance(values, list):
            shape.append(len(values))
            values = values[0]
        return tuple(shape)

    def view(self, *shape):
        flat = self.values
        while isinstance(flat, list) and flat and isinstance(flat[0], list):
            flat = [value for part in flat for value in part]
        if not isinstance(flat, list):
            flat = [flat]
        assert shape in ((1, 1), (1, -1)), shape
        return Tensor([flat])

    def argmax(self, _dim):
        return Tensor(max(range(len(self.values)), key=self.values.__getitem__))

    def float(self):
        return self

    def clone(self):
        return Tensor(self.values)

    def tolist(self):
        return self.values


def tensor(values, device=None):
    return Tensor(values)


def arange(start, end, device=None):
    return Tensor(list(range(start, end)))


def set_grad_enabled(_on):
    pass


def set_num_threads(_count):
    pass


def compile(function, mode):
    assert mode == "reduce-overhead"
    return function


class cuda:
    @staticmethod
    def is_available():
        return "STANDIN_CUDA" in os.environ

    @staticmethod
    def get_device_name():
        return "stand-in"

    @staticmethod
    def synchronize():
        pass


class compiler:
    @staticmethod
    def cudagraph_mark_step_begin():
        pass
