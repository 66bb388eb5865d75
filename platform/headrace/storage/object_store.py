"""S3, or a store that speaks its protocol: this process's client, and what the store's errors mean.

Region, endpoint (AWS_ENDPOINT_URL for MinIO, R2, ...) and credentials are found by boto3's own chain on the node that reads; none of them
is part of a configuration.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from headrace.config import ConfigError

ATTEMPTS = 8  # of a request, with botocore's growing pauses, where AWS_MAX_ATTEMPTS does not say
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
PASSING = ("RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests")


class StorageError(RuntimeError):
    """A store does not answer, or what lies there changed under the run: the same command may succeed later, exit code 75.

    No OSError, which readers take as a fault of the file: the file may be sound, and must not land in the quarantine.
    """


def client(place: str) -> Any:
    """This process's client.

    Raises:
        ConfigError: boto3 is not installed, or what it finds in the environment makes no client.
    """
    try:
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError:
        raise ConfigError(f"{place}: for s3:// paths, pip install 'headrace[s3]' (boto3) on every node.") from None
    try:
        return connected()
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
        raise explained(error, place, "") from None


def explained(error: Exception, place: str, permission: str) -> Exception:
    """An error of boto3 as one of ours: StorageError where the same command may succeed later, ConfigError where something must change."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        why = f"{code}: {error.response['Error'].get('Message', 'no reason given')}"
        if code in EXPIRED:
            return StorageError(f"{place}: the credentials have expired ({why}); renew them and run the same command again.")
        if status >= 500 or status == 429 or code in PASSING:
            return StorageError(f"{place}: the store did not serve it ({why}); run the same command again later: what is done stays done.")
        if code == "NoSuchBucket":
            return ConfigError(f"{place}: no such bucket at {_endpoint()}; correct its name, or AWS_ENDPOINT_URL for another store.")
        way = f"allow {permission} to them, or choose others with AWS_PROFILE"
        return ConfigError(f"{place}: the store refused it with the credentials that boto3 found ({why}); {way}.")
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError):
        return StorageError(f"{place}: {_endpoint()} does not answer ({error}); run the same command again later: what is done stays done.")
    # No credentials, a profile that does not exist, an endpoint that is no URL, a bucket's name that cannot be one.
    way = "AWS_PROFILE (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the node's role) and AWS_ENDPOINT_URL"
    return ConfigError(f"{place}: {error}. boto3 takes its settings from the environment of the node that reads: look at {way}.")


def _endpoint() -> str:
    return connected().meta.endpoint_url


@functools.lru_cache(maxsize=1)
def connected() -> Any:
    """The client that boto3 makes, once."""
    import boto3
    from botocore.config import Config as ClientConfig

    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
    # Checksums of whole objects say nothing about ranges, and some stores send them all the same.
    settings = ClientConfig(retries={"mode": "standard", "total_max_attempts": attempts}, response_checksum_validation="when_required")
    return boto3.session.Session().client("s3", config=settings)
