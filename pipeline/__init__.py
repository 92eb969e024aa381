"""How rows travel: reading, preparing, answering and writing them on Ray, and the settings of it.

This is the door for jobs: what they need to describe their work, and to read what a run has left. To run one there are
`pipeline.run` and `pipeline.retry`, which load much more. The pipeline's own files never import from here.
"""

from pipeline.input.columns import ERROR, OUR_COLUMNS, TAKEN
from pipeline.input.formats.chats import MESSAGES
from pipeline.input.formats.rows import ReadError
from pipeline.input.formats.table import FORMATS
from pipeline.input.proposals import own_name, setting_for
from pipeline.input.read import read_unit
from pipeline.input.sources import Source, join_plans
from pipeline.input.units import InputPlan, ReadSettings, Unit, plan_input
from pipeline.job import Check, Job, MissingColumns
from pipeline.pipeline_settings import CheckSettings, PipelineSettings
from pipeline.results import ResultFile, Standing, look_at, read_results
from pipeline.rows import (
    ANSWER,
    FOR_THE_JOB,
    IMAGES,
    READ,
    count_rows,
    kept_columns,
    kept_name,
    part_schema,
    row_error,
    row_seed,
)
from pipeline.settings import (
    ConfigError,
    Settings,
    check_settings,
    dump_settings,
    lay_over,
    load_settings,
    near,
    read_values,
    stand_in,
)
from pipeline.state import ledger
from pipeline.state.ledger import RunError
from pipeline.state.plan import FrozenPlan, freeze_plan, read_plan
from pipeline.steps.check import CHECK_STAGE
from pipeline.steps.read import job_rows_schema, read_job_rows, settings_by_source
from pipeline.steps.tars import EXTENSIONS, has_pictures
from pipeline.steps.write import Part, oddities_in, parquet_bytes, plan_parts
from pipeline.storage.model_folder import local_copy, weights_digest
from pipeline.storage.store import NotFound, StorageError, StorageSettings, Store
