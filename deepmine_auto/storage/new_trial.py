"""A new trial as rows of Optuna's tables, written in four statements.

Optuna's own `create_new_trial` takes three statements a param, which was a third of the time of a proposal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import Engine, insert
from sqlalchemy.orm import Session


def insert_trial(engine: Engine, study_id: int, number: int, template: FrozenTrial) -> int:
    """Write a trial that has only begun, under this number, in one transaction; return its id.

    That a param's range agrees with that of earlier rows is not looked at: names with `@2` see to it.
    """
    with Session(engine) as session, session.begin():
        trial = models.TrialModel(
            study_id=study_id, number=number, state=template.state, datetime_start=template.datetime_start
        )
        session.add(trial)
        session.flush()
        rows = {
            models.TrialParamModel: _params(template),
            models.TrialUserAttributeModel: _attrs(template.user_attrs),
            models.TrialSystemAttributeModel: _attrs(template.system_attrs),
        }
        for model, found in rows.items():
            if found:
                session.execute(insert(model), [{"trial_id": trial.trial_id, **row} for row in found])
        return int(trial.trial_id)


def _params(template: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {
            "param_name": name,
            "param_value": each.to_internal_repr(template.params[name]),
            "distribution_json": distribution_to_json(each),
        }
        for name, each in template.distributions.items()
    ]


def _attrs(attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]
