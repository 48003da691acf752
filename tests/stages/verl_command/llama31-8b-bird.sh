#!/usr/bin/env bash
# Before it, where every node sees the files (pip install 'dphrl[verl]' on all of them):
#   dphrl presample --config recipes/llama31-8b-bird.yaml --out /runs/bird
#   dphrl export verl --config recipes/llama31-8b-bird.yaml --run /runs/bird --out /runs/bird/verl
# On the first of 2 nodes, before this script runs there:
#   ray start --head --port=6379 --num-gpus=8
# On the other one:
#   ray start --address=FIRST_NODE:6379 --num-gpus=8
# Differs there: a prompt of more than 12,000 tokens is left out (data.max_prompt_length).
# Differs there: advantages are divided by the group's deviation + 1e-6; TRL adds 1e-4.
# Differs there: weights of norms and biases decay too; TRL leaves them out.
# not carried over: model.pad_token=<|finetune_right_pad_id|> (verl pads with its own token; padding is masked everywhere)
# not carried over: train.micro_batch=8 (verl packs as many rows as ppo_max_token_len_per_gpu has room for)
# not carried over: train.trl.vllm_mode=colocate (--mode says where verl draws)
# May be added: +dph.rescore=true, if 16-bit kernels leave mean |log u| too large before the first step.
mkdir -p /runs/bird/verl
python -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo \
  algorithm.use_kl_in_reward=False \
  algorithm.norm_adv_by_std_in_grpo=True \
  data.train_files=/runs/bird/verl/train.parquet \
  'data.val_files=[/runs/bird/verl/bird-dev.parquet,/runs/bird/verl/spider-dev.parquet,/runs/bird/verl/aime24.parquet,/runs/bird/verl/amc23.parquet,/runs/bird/verl/math500.parquet,/runs/bird/verl/olympiadbench.parquet,/runs/bird/verl/college_math.parquet]' \
  data.train_batch_size=128 \
  data.max_prompt_length=12000 \
  data.max_response_length=4096 \
  data.filter_overlong_prompts=True \
  data.seed=0 \
  actor_rollout_ref.model.path=meta-llama/Llama-3.1-8B-Instruct \
  actor_rollout_ref.model.enable_gradient_checkpointing=True \
  actor_rollout_ref.actor.strategy=fsdp2 \
  actor_rollout_ref.actor.fsdp_config.model_dtype=fp32 \
  actor_rollout_ref.actor.ppo_mini_batch_size=64 \
  actor_rollout_ref.actor.ppo_epochs=1 \
  actor_rollout_ref.actor.shuffle=False \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
  actor_rollout_ref.actor.clip_ratio_low=0.2 \
  actor_rollout_ref.actor.clip_ratio_high=0.28 \
  actor_rollout_ref.actor.clip_ratio_c=1000000000.0 \
  actor_rollout_ref.actor.entropy_coeff=0.0 \
  actor_rollout_ref.actor.use_kl_loss=False \
  actor_rollout_ref.actor.optim.lr=1e-06 \
  actor_rollout_ref.actor.optim.lr_scheduler_type=constant \
  actor_rollout_ref.actor.optim.lr_warmup_steps=0 \
  actor_rollout_ref.actor.optim.weight_decay=0.01 \
  actor_rollout_ref.actor.optim.clip_grad=1.0 \
  actor_rollout_ref.actor.loss_agg_mode=token-mean \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.dtype=bfloat16 \
  actor_rollout_ref.rollout.n=16 \
  actor_rollout_ref.rollout.temperature=1.0 \
  actor_rollout_ref.rollout.top_p=1.0 \
  actor_rollout_ref.rollout.seed=0 \
  actor_rollout_ref.rollout.val_kwargs.n=16 \
  actor_rollout_ref.rollout.val_kwargs.do_sample=True \
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0 \
  actor_rollout_ref.rollout.val_kwargs.top_p=1.0 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
  actor_rollout_ref.rollout.free_cache_engine=True \
  actor_rollout_ref.rollout.max_model_len=16096 \
  reward.custom_reward_function.path=pkg://dphrl.engines.verl.reward \
  +dph.anchors=/runs/bird/anchors \
  +dph.method=dph \
  +dph.seed=0 \
  +dph.eta=0.05 \
  +dph.eta_schedule=constant \
  +dph.anchors_per_step=128 \
  +dph.divergence=forward_kl \
  +dph.form=generator \
  +dph.log_u_cap=5.0 \
  trainer.max_actor_ckpt_to_keep=2 \
  'trainer.logger=[console,file]' \
  trainer.nnodes=2 \
  trainer.n_gpus_per_node=8 \
  trainer.total_training_steps=368 \
  trainer.total_epochs=368 \
  trainer.save_freq=80 \
  trainer.test_freq=368 \
  trainer.val_before_train=True \
  trainer.project_name=dphrl \
  trainer.default_local_dir=/runs/bird/verl/checkpoints \
  trainer.validation_data_dir=/runs/bird/verl/validation \
  trainer.experiment_name=bird \
  trainer.v1.trainer_mode=dph \
  +ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH=/runs/bird/verl/metrics.jsonl \
  transfer_queue.backend.SimpleStorage.total_storage_size=null
