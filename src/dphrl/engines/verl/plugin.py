"""What verl loads in each of its processes (entry point `verl.plugins`): registers the trainers."""

import dphrl.engines.verl.trainer  # noqa: F401
