"""One account of AWS in one region: who we are in it, and every call that is made to it."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

Answer = dict[str, Any]

CLUSTER = "quote-platform/cluster"
NAME = "quote-platform/name"
# Passes by itself.
BUSY = {
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "SlowDown",
    "PriorRequestNotComplete",
    "RequestThrottled",
}
# Something has this name already: made by a call that was not answered, or somebody else's.
TAKEN = {
    "InvalidGroup.Duplicate",
    "InvalidSubnet.Conflict",
    "EntityAlreadyExists",
    "DuplicateLoadBalancerName",
    "DuplicateTargetGroupName",
    "BucketAlreadyOwnedByYou",
    "DBInstanceAlreadyExists",
    "DBParameterGroupAlreadyExists",
    "DBSubnetGroupAlreadyExists",
    "DuplicateRecordException",
}
# The caller lacks a right.
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
LACKED = re.compile(r"not authorized to perform: (?P<action>[\w-]+:\w+)(?: on resource: (?P<resource>\S+))?")
# What an answer to the first call means, and what to do.
IDENTITY = {
    "ExpiredToken": "the credentials have expired: get new ones, for example by `aws sso login`",
    "ExpiredTokenException": "the credentials have expired: get new ones, for example by `aws sso login`",
    "InvalidClientTokenId": "AWS knows no such access key: correct the credentials",
    "UnrecognizedClientException": "AWS knows no such access key: correct the credentials",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key: correct the credentials",
}


class Refused(Exception):
    """It cannot be done; the text says what is wrong, and what is allowed."""


class Doubtful(Exception):
    """A call was not answered: whether it was carried out is not known."""


def code(error: ClientError) -> str:
    """Return the code of an error that AWS has answered."""
    return str(error.response.get("Error", {}).get("Code", ""))


class Account:
    """The account that credentials of boto3's own kinds lead to (environment, profile, role).

    `timeout` is in seconds, for whatever is waited for. Calls are counted by `service:Operation`, repeated
    ones each time.
    """

    # Of botocore's own retries: also 10 % of calls refused then fail less than once in 10^9.
    ATTEMPTS = 10

    def __init__(self, region: str, cluster: str, timeout: float = 600, pause: float = 5) -> None:
        self.region, self.cluster = region, cluster
        self.timeout, self.pause = timeout, pause
        # Days after which a key that is deleted ends, 7 to 30.
        self.key_days = 30
        # Whether buckets and a last snapshot of the database stay.
        self.keeps_backups = True
        self.calls: Counter[str] = Counter()
        self._session = boto3.session.Session(region_name=region)
        self._session.events.register("before-send", self._count)
        self._session.events.register("after-call", self._explain)
        self._clients: dict[tuple[str, bool], Any] = {}
        self._remembered: dict[str, tuple[float, Any]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self.id = ""

    def _count(self, event_name: str, **_: Any) -> None:
        service, operation = event_name.split(".")[1:]
        with self._lock:
            self.calls[f"{service}:{operation}"] += 1

    @staticmethod
    def _explain(parsed: Answer, model: Any, **_: Any) -> None:
        """Say of a refusal which right is missing, and what has it."""
        error = parsed.get("Error", {})
        if error.get("Code") not in DENIED:
            return
        said = str(error.get("Message", "")).partition(" Encoded authorization")[0]
        found = LACKED.search(said)
        action = found["action"] if found else f"{model.service_model.signing_name}:{model.name}"
        resource = (found["resource"] or "*").rstrip(".") if found else "*"
        error["Message"] = (
            f"the credentials lack the right {action} on {resource}; `quote-platform aws policy -i INVENTORY"
            f"` prints a policy that has all that are needed. AWS says: {said}"
        )

    def api(self, service: str, once: bool = False) -> Any:
        """Return a client; `once` is for what must not be repeated blindly, see `create`."""
        with self._lock:  # making a client is not safe among threads, using one is
            if (service, once) not in self._clients:
                retries: Answer = (
                    {"total_max_attempts": 1}
                    if once
                    else {"mode": "adaptive", "total_max_attempts": self.ATTEMPTS}
                )
                self._clients[service, once] = self._session.client(
                    service,
                    config=Config(
                        retries=retries, connect_timeout=5, read_timeout=60, max_pool_connections=16
                    ),
                )
            return self._clients[service, once]

    def verify(self, account_id: str) -> None:
        """Refuse every account but one; the first call of all."""
        where = f"aws_account_id: {account_id}"
        try:
            found = self.api("sts").get_caller_identity()
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise Refused(
                f"{where}: there are no credentials for it ({error}); allowed are those that boto3 finds, "
                "such as AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except ClientError as error:
            raise Refused(f"{where}: {IDENTITY.get(code(error), error)}") from error
        except BotoCoreError as error:
            raise Refused(f"{where}: AWS in the region {self.region} cannot be asked: {error}") from error
        if found["Account"] != account_id:
            raise Refused(
                f"{where} is not the account of these credentials, which is {found['Account']} "
                f"({found['Arn']}); nothing is made in it. Use credentials of the right one, or correct "
                "aws_account_id"
            )
        self.id = account_id

    def pages(self, service: str, operation: str, key: str, **given: Any) -> list[Answer]:
        """Return what a listing has on all its pages."""
        client = self.api(service)
        if client.can_paginate(operation):
            return [item for page in client.get_paginator(operation).paginate(**given) for item in page[key]]
        return list(getattr(client, operation)(**given)[key])

    def ours(self, operation: str, key: str) -> list[Answer]:
        """Return what EC2 has with the cluster's tag."""
        return self.pages(
            "ec2", operation, key, Filters=[{"Name": f"tag:{CLUSTER}", "Values": [self.cluster]}]
        )

    def remembered[Found](self, what: str, ask: Callable[[], Found], age: float = float("inf")) -> Found:
        """Return what was asked for at most `age` seconds ago, or ask: once, also for several threads."""
        with self._lock:
            lock = self._locks.setdefault(what, threading.Lock())
        with lock:
            when, found = self._remembered.get(what, (float("-inf"), None))
            if time.monotonic() - when > age or what not in self._remembered:
                found = ask()
                self._remembered[what] = (time.monotonic(), found)
            known: Found = found
            return known

    def forget(self) -> None:
        """Forget what was listed."""
        with self._lock:
            self._remembered.clear()

    def create(self, service: str, operation: str, **given: Any) -> Answer:
        """Make something, once: what was refused for being too much is sent again, what is in doubt is not.

        A request that AWS answers by an error of its own may have been carried out: a blind second one makes
        a second thing where AWS has no client token.
        """
        call = getattr(self.api(service, once=True), operation)
        for attempt in range(self.ATTEMPTS):
            try:
                return dict(call(**given))
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if code(error) not in BUSY and status < 500:
                    raise
                if code(error) not in BUSY:
                    raise Doubtful(f"{operation}: {error}") from error
            except (ConnectionError, HTTPClientError) as error:
                raise Doubtful(f"{operation}: {error}") from error
            self.sleep(min(0.1 * 2**attempt, self.pause))
        raise Refused(
            f"{operation}: AWS has refused it {self.ATTEMPTS} times for being too much: run again later"
        )

    def create_named(self, service: str, operation: str, **given: Any) -> Answer:
        """Make something whose name can be there once; if it is taken, a lost call may have made it."""
        try:
            return self.create(service, operation, **given)
        except ClientError as error:
            if code(error) in TAKEN:
                raise Doubtful(str(error)) from error
            raise

    def create_or_refuse(self, what: str, service: str, operation: str, **given: Any) -> Answer:
        """Make something whose name can be there once, or refuse with AWS' reason."""
        try:
            return self.create_named(service, operation, **given)
        except ClientError as error:
            raise Refused(f"{what} cannot be made: {error}") from error
        except Doubtful:
            self.forget()
            raise

    def sleep(self, seconds: float) -> None:
        """Wait a little less or more than that, so that threads part."""
        time.sleep(seconds * random.uniform(0.7, 1.3))  # noqa: S311 (it keeps no secret)

    def until(self, what: str, done: Callable[[], bool]) -> None:
        """Repeat a question until it is answered with yes."""
        for _ in self.tries(what):
            if done():
                return

    def tries(self, what: str) -> Iterator[int]:
        """Yield numbers of attempts, with pauses that grow; refuse to go on when the time is over."""
        deadline = time.monotonic() + self.timeout
        attempt = 0
        while time.monotonic() < deadline:
            yield attempt
            self.sleep(min(self.pause, 0.05 * 2**attempt))
            attempt += 1
        raise Refused(f"{what}: not so after {self.timeout:.0f} s. Run again, which goes on from there")

    def token(self, *parts: str) -> str:
        """Return a client token: the same for the same thing, so that a second request makes no second."""
        return hashlib.sha256("/".join((self.cluster, *parts)).encode()).hexdigest()[:40]

    def tags(self, name: str) -> list[dict[str, str]]:
        """Return the tags of a thing."""
        return [
            {"Key": CLUSTER, "Value": self.cluster},
            {"Key": NAME, "Value": name},
            {"Key": "Name", "Value": f"{self.cluster}-{name}"},
        ]


def tag(of: Answer, key: str) -> str:
    """Return a tag, or nothing."""
    return next((str(one["Value"]) for one in of.get("Tags") or [] if one["Key"] == key), "")
