"""minicf ("mini critic-free"): why reinforcement learning of language models works without a critic.

Read in this order: env (the world), gpt (the policy), rollout (sampling and scoring), ppo and grpo
(the losses), exact (the truth by enumeration), training (the loops).
"""
