"""Addresses of storages."""

import pytest

from app.storage import open_storage
from quant_core.errors import UserError


def test_a_folder_is_named_with_its_blanks_written_out(tmp_path):
    storage = open_storage(f"file://{tmp_path}/two%20words", tmp_path)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "file.bin").write_bytes(b"here")
    storage.publish(tmp_path / "made", "job/input")
    assert b"here" in [path.read_bytes() for path in (tmp_path / "two words").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "url", ["s3://", "ftp://host/path", "file://host/path", "folder", "s3://[bucket", "s3://bucket?zone=a"]
)
def test_what_is_no_address_of_a_storage_is_refused_by_the_name_of_its_variable(url, tmp_path):
    with pytest.raises(UserError) as caught:
        open_storage(url, tmp_path)
    assert caught.value.where == "BITWRIGHT_STORAGE_URL"
    assert "s3://" in caught.value.remedy
