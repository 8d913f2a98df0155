"""A budget of the account, whose mails say that a month costs more than was meant."""

from __future__ import annotations

from botocore.exceptions import ClientError

from quote_platform.aws.account import Account, Answer, code
from quote_platform.aws.resource import Found, Kind, Values

# Per cent of the budget at which mails are sent: of what was spent, and of what AWS expects of the month.
ALARMS = {"ACTUAL": 80, "FORECASTED": 100}


def _alarm(text: str) -> tuple[str, str]:
    """Return of `ACTUAL 80 to MAIL` what is told, and whom."""
    told, _, mail = text.partition(" to ")
    return told, mail


def _notification(told: str) -> Answer:
    kind, _, threshold = told.partition(" ")
    return {
        "NotificationType": kind,
        "ComparisonOperator": "GREATER_THAN",
        "Threshold": float(threshold),
        "ThresholdType": "PERCENTAGE",
    }


def _mails(alarms: list[str]) -> dict[str, list[str]]:
    """Return who is told of what."""
    found: dict[str, list[str]] = {}
    for told, mail in map(_alarm, alarms):
        found.setdefault(told, []).append(mail)
    return {told: sorted(mails) for told, mails in found.items()}


def _subscribers(mails: list[str]) -> list[Answer]:
    return [{"SubscriptionType": "EMAIL", "Address": mail} for mail in mails]


class Budget(Kind):
    """What the whole account may cost in a month; it is known by its name, which is the account's."""

    name, stage, optional = "budget", 1, True

    @staticmethod
    def _given(account: Account, name: str) -> Answer:
        return {"AccountId": account.id, "BudgetName": f"{account.cluster}-{name}"}

    def listed(self, account: Account) -> list[Found]:
        """Look for it."""
        try:
            one = account.api("budgets").describe_budget(**self._given(account, "month"))["Budget"]
        except ClientError as error:
            if code(error) != "NotFoundException":
                raise
            return []
        limit = f"{float(one['BudgetLimit']['Amount']):g}"
        return [Found("month", one["BudgetName"], {"limit": limit})]

    def read(self, account: Account, found: Found) -> None:
        """Ask who is told of what."""
        given = self._given(account, found.name)
        asked = account.pages("budgets", "describe_notifications_for_budget", "Notifications", **given)
        found.state["alarms"] = []
        for one in asked:
            only = {key: value for key, value in one.items() if key != "NotificationState"}
            told = f"{one['NotificationType']} {one['Threshold']:g}"
            found.raw[told] = only
            subscribers = account.pages(
                "budgets", "describe_subscribers_for_notification", "Subscribers", Notification=only, **given
            )
            found.state["alarms"] += [f"{told} to {who['Address']}" for who in subscribers]

    def _budget(self, account: Account, name: str, wanted: Values) -> Answer:
        return {
            "BudgetName": self._given(account, name)["BudgetName"],
            "BudgetLimit": {"Amount": wanted["limit"], "Unit": "USD"},
            "TimeUnit": "MONTHLY",
            "BudgetType": "COST",
        }

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it with its alarms."""
        account.create_named(
            "budgets",
            "create_budget",
            AccountId=account.id,
            Budget=self._budget(account, name, wanted),
            NotificationsWithSubscribers=[
                {"Notification": _notification(told), "Subscribers": _subscribers(mails)}
                for told, mails in _mails(wanted["alarms"]).items()
            ],
            ResourceTags=account.tags(name),
        )
        return Found(name, self._given(account, name)["BudgetName"], dict(wanted))

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Change the limit; replace each alarm that is not as it shall be."""
        budgets, given = account.api("budgets"), self._given(account, found.name)
        if "limit" in fields:
            new = self._budget(account, found.name, wanted)
            budgets.update_budget(AccountId=account.id, NewBudget=new)
        before, after = _mails(found.state["alarms"]), _mails(wanted["alarms"])
        for told in sorted(found.raw.keys() | after.keys()):
            if before.get(told) == after.get(told):
                continue
            if told in found.raw:
                budgets.delete_notification(Notification=found.raw[told], **given)
            if told in after:
                budgets.create_notification(
                    Notification=_notification(told), Subscribers=_subscribers(after[told]), **given
                )

    def delete(self, account: Account, found: Found) -> None:
        """Delete it with its alarms."""
        try:
            account.api("budgets").delete_budget(**self._given(account, found.name))
        except ClientError as error:
            if code(error) != "NotFoundException":
                raise
