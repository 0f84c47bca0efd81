"""The paper's experiments on any table."""

from benchrouter.evaluation.tasks.leave_one_out import LeaveOneOut, leave_one_dataset_out

__all__ = ["LeaveOneOut", "leave_one_dataset_out"]
