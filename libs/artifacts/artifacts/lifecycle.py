"""The bucket's lifecycle rule: what half-finished uploads of killed programs leave behind is removed by the store.

`darkroom bucket setup` calls this; the services never do.
"""

from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, LifecycleConfig, Rule

from artifacts import s3
from artifacts.config import StoreConfig

RULE_ID = "darkroom-abort-incomplete-uploads"
# How stores say that they do not know the rule. MinIO removes such uploads by itself, after a day as well.
_UNKNOWN = ("InvalidArgument", "InvalidRequest", "MalformedXML", "NotImplemented")


class LifecycleUnsupported(Exception):
    """The store does not know this rule. Field: detail, the store's own words."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the store does not know a rule for incomplete uploads: {detail}")
        self.detail = detail


def abort_incomplete_uploads(config: StoreConfig, days: int) -> bool:
    """Have uploads removed that are incomplete after so many days; other rules of the bucket stay.

    Returns whether the bucket was changed. Raises LifecycleUnsupported and what `store` raises.
    """
    client = s3.connect(config, s3.connection_pool(config))
    wanted = AbortIncompleteMultipartUpload(days_after_initiation=days)
    rule = Rule(ENABLED, rule_filter=Filter(prefix=""), rule_id=RULE_ID, abort_incomplete_multipart_upload=wanted)
    with s3.translated(config, config.bucket):
        try:
            present = client.get_bucket_lifecycle(config.bucket)
            rules = list(present.rules) if present else []
            if any(_days(one) == days for one in rules):
                return False
            others = [one for one in rules if one.rule_id != RULE_ID]
            client.set_bucket_lifecycle(config.bucket, LifecycleConfig([*others, rule]))
        except S3Error as error:
            if error.code in _UNKNOWN:
                raise LifecycleUnsupported(f"{error.code}: {error.message}") from error
            raise
    return True


def _days(rule: Rule) -> int | None:
    """After how many days a rule of ours aborts uploads; None for another rule."""
    abort = rule.abort_incomplete_multipart_upload
    return abort.days_after_initiation if rule.rule_id == RULE_ID and abort else None
