"""Makes golden.json: what diffusers' schedulers do with a denoiser that is one line of arithmetic.

    python runtime/src/pipeline/scheduler/golden.py

Needs the PyPI packages diffusers and torch (diffusers 0.42.1 made the file that is committed).
"""

import json
import pathlib

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler
from diffusers.schedulers import scheduling_lcm

SAMPLE = [1.5, -0.25, 0.75, -2.0]


def noise(step):
    return torch.tensor([0.5 + 0.25 * step, -1.0, 0.125 * step, 1.0])


def run(scheduler, steps, **options):
    scheduler.set_timesteps(steps, **options)
    train = scheduler.config.num_train_timesteps
    sample = torch.tensor(SAMPLE)
    samples = []
    for step, timestep in enumerate(scheduler.timesteps):
        scheduling_lcm.randn_tensor = lambda *_, **__: noise(step)
        output = 0.375 * sample + 0.0625 - 0.25 * (float(timestep) / train)
        sample = scheduler.step(output, timestep, sample).prev_sample
        samples.append([float(value) for value in sample])
    return {"timesteps": [float(timestep) for timestep in scheduler.timesteps], "samples": samples}


cases = []


def case(spec, prediction, steps, scheduler, **options):
    cases.append({"spec": spec, "prediction": prediction, "steps": steps, **run(scheduler, steps, **options)})


for shift, steps in [(1.0, 1), (1.0, 4), (3.0, 7)]:
    spec = {"kind": "flow_match_euler", "num_train_timesteps": 1000, "shift": shift, "timestep_is_data_fraction": False}
    case(spec, "flow", steps, FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift))

betas = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
for prediction, name in [("epsilon", "epsilon"), ("v_prediction", "v_prediction"), ("sample", "sample")]:
    for steps, offset, one, clip, schedule in [(5, 1, False, False, "scaled_linear"), (3, 0, True, True, "linear")]:
        numbers = {**betas, "beta_schedule": schedule, "steps_offset": offset, "set_alpha_to_one": one, "clip_sample": clip}
        case({"kind": "ddim", **numbers}, name, steps, DDIMScheduler(**numbers, prediction_type=prediction))
    for steps in (1, 4):
        numbers = {**betas, "beta_schedule": "scaled_linear", "original_inference_steps": 50, "timestep_scaling": 10.0, "set_alpha_to_one": True}
        case({"kind": "lcm", **numbers}, name, steps, LCMScheduler(**numbers, prediction_type=prediction, clip_sample=False))

path = pathlib.Path(__file__).with_suffix(".json")
path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
