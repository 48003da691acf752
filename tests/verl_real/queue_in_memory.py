"""TransferQueue's keys and values in this process, for tests of what goes through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from verl.utils.tensordict_utils import list_of_dict_to_tensordict


class QueueInMemory:
    """Rows by key. Like TransferQueue it hands out fields that all rows have, in the order of the keys."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def kv_batch_put(self, *, keys: Sequence[str], partition_id: str, fields: Any = None, tags: Any = None) -> Any:
        columns = {} if fields is None else {name: _rows(fields[name]) for name in sorted(fields.keys())}
        for i, key in enumerate(keys):
            self.rows.setdefault(key, {}).update({name: column[i] for name, column in columns.items()})

    def kv_batch_get(
        self, *, keys: Sequence[str], partition_id: str, select_fields: Sequence[str] | None = None
    ) -> Any:
        rows = [self.rows[key] for key in keys]
        shared = [name for name in (select_fields or sorted(rows[0])) if all(name in row for row in rows)]
        data = list_of_dict_to_tensordict([{name: row[name] for name in shared} for row in rows])
        for name in shared:
            if isinstance(rows[0][name], torch.Tensor) and not data[name].is_nested and data[name].dim() > 1:
                data[name] = torch.nested.as_nested_tensor(list(data[name].unbind()), layout=torch.jagged)
        return data

    def kv_clear(self, *, keys: Sequence[str], partition_id: str) -> None:
        for key in keys:
            self.rows.pop(key, None)


def _rows(column: Any) -> list[Any]:
    return list(column.unbind()) if isinstance(column, torch.Tensor) else list(column)
