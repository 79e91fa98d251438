"""Plausible wrong answers to the lessons' exercises: each must fail the visible check and the test.

WRONG[grade_id][name] is what stands in the place of the solution; it may use what the lesson has
imported so far. `test_lessons.py` demands at least three per exercise, and that each fails an
assertion of both: an answer that crashes would prove nothing about the test.
"""

BACKWARDS = """
    costates = torch.zeros_like(states)
    for t in reversed(range(states.shape[1] - 1)):
        later, sine = costates[:, t + 1], torch.sin(states[:, t + 1])
        costates[:, t] = {}
    return {}
"""  # lesson 07

ROLLOUTS = """
    start = torch.full((len(eps),), s, dtype=eps.dtype)
    states = track.rollout(start, eps)
    noisy = track.costates(states)
    quiet = track.costates(track.rollout(start, 0 * eps))
    average = track.costates(states.mean(0, keepdim=True))
    return {}
"""  # lesson 07

WRONG = {
    "01-logprob": {
        "nothing returned": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            (logprobs * mask).sum(1)
        """,
        "detached": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1).detach()
        """,
        "a list of floats": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1).tolist()
        """,
        "a tuple": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1), mask
        """,
        "zeros": "return 0 * policy(prompts)[0].sum((1, 2))",
        "the logits one position early": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 2 : -1]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "the logits one position late": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) :]
            logits = torch.cat([logits, logits[:, -1:]], 1)
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs[:, :-1] * mask[:, :-1]).sum(1)
        """,
        "one position too few": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "the last token fed, too": """
            tokens = torch.cat([prompts, completions], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "the cache not left aside": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "the first token dropped": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask)[:, 1:].sum(1)
        """,
        "the stop dropped": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * (completions != eos)).sum(1)
        """,
        "one stop too many": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            mask = stops.cumsum(1) - stops <= 1
            return (logprobs * mask).sum(1)
        """,
        "the fill-up counted": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return logprobs.sum(1)
        """,
        "logits instead of log-probabilities": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "log_softmax over positions": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "the probability": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1).exp()
        """,
        "probabilities added up": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs.exp() * mask).sum(1)
        """,
        "the mean over tokens": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1) / mask.sum(1)
        """,
        "the mean over positions": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).mean(1)
        """,
        "the sign": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return -(logprobs * mask).sum(1)
        """,
        "one number for each token": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return logprobs * mask
        """,
        "one number for all rows": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum().view(1)
        """,
        "the first prompt for every row": """
            tokens = torch.cat([prompts[:1].expand(len(prompts), -1), completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "the mask of the first row for every row": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask[:1]).sum(1)
        """,
        "the package's own": """
            logprobs = completion_logprobs(policy, prompts, completions)
            return (logprobs * completion_mask(completions, eos)).sum(1)
        """,
    },
    "01-success": {
        "nothing returned": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            torch.stack(values)
        """,
        "a list": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return values
        """,
        "a list of floats": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum().item())
            return values
        """,
        "floats made a tensor": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum().item())
            return torch.tensor(values)
        """,
        "without gradients": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.stack(values).detach()
        """,
        "zeros": "return 0 * policy(env.prompts)[0].sum((1, 2))",
        "the mean over right answers": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().mean())
            return torch.stack(values)
        """,
        "the likeliest right answer alone": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().max())
            return torch.stack(values)
        """,
        "the fill-up counted": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append(logprobs.sum(1).exp().sum())
            return torch.stack(values)
        """,
        "the stop dropped": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = rows != env.eos
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.stack(values)
        """,
        "log-probabilities added up": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum())
            return torch.stack(values)
        """,
        "exp after the sum over answers": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum().exp())
            return torch.stack(values)
        """,
        "probabilities of tokens added up": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs.exp() * mask).sum())
            return torch.stack(values)
        """,
        "probabilities masked before they are multiplied": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs.exp() * mask).prod(1).sum())
            return torch.stack(values)
        """,
        "the mean over tokens": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append(((logprobs * mask).sum(1) / mask.sum(1)).exp().sum())
            return torch.stack(values)
        """,
        "as if answers were drawn independently": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append(1 - (1 - (logprobs * mask).sum(1).exp()).prod())
            return torch.stack(values)
        """,
        "the probability to be wrong": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return 1 - torch.stack(values)
        """,
        "the mean over prompts": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.stack(values).mean()
        """,
        "the first prompt's success for all": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.stack(values[:1] * len(values))
        """,
        "answers scored after the first prompt": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, env.prompts[0].expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.stack(values)
        """,
        "a prompt for all its answers": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt[None], rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.stack(values)
        """,
        "sampled": """
            rollout = sample(policy, env, env.prompts, 64, torch.Generator().manual_seed(0))
            return rollout.rewards.view(-1, 64).mean(1)
        """,
        "the package's own": "return success(policy, env)",
        "the package's own, before it is added up": """
            probabilities, rows = solution_probabilities(policy, env)
            return torch.zeros(len(env.prompts)).index_add(0, rows, probabilities)
        """,
    },
    "02-loss": {
        "the mask multiplied": """
            return -(advantages.detach() * (logprobs * mask).sum(1)).mean()
        """,
        "zeros": "return 0 * logprobs.sum()",
        "the sign": """
            return (advantages.detach() * logprobs.masked_fill(~mask, 0.0).sum(1)).mean()
        """,
        "no mask": "return -(advantages.detach() * logprobs.sum(1)).mean()",
        "the stop dropped": """
            lengths = mask.sum(1, keepdim=True)
            before = torch.arange(mask.size(1)) < lengths - 1
            return -(advantages.detach() * logprobs.masked_fill(~before, 0.0).sum(1)).mean()
        """,
        "one token after the stop": """
            lengths = mask.sum(1, keepdim=True)
            live = torch.arange(mask.size(1)) <= lengths
            return -(advantages.detach() * logprobs.masked_fill(~live, 0.0).sum(1)).mean()
        """,
        "the mean over tokens": """
            return -(advantages.detach()[:, None] * logprobs)[mask].mean()
        """,
        "divided by the own length": """
            logprob = logprobs.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)
            return -(advantages.detach() * logprob).mean()
        """,
        "the sum over completions": """
            return -(advantages.detach() * logprobs.masked_fill(~mask, 0.0).sum(1)).sum()
        """,
        "a gradient through the advantages": """
            return -(advantages * logprobs.masked_fill(~mask, 0.0).sum(1)).mean()
        """,
        "every advantage meets every completion": """
            logprob = logprobs.masked_fill(~mask, 0.0).sum(1, keepdim=True)
            return -(advantages.detach() * logprob).mean()
        """,
        "probabilities instead of their logarithms": """
            return -(advantages.detach() * logprobs.masked_fill(~mask, 0.0).sum(1).exp()).mean()
        """,
        "the mean over B·T places": """
            return -(advantages.detach()[:, None] * logprobs).masked_fill(~mask, 0.0).mean()
        """,
        "the ratio in the place of the logarithm": """
            logprob = logprobs.masked_fill(~mask, 0.0).sum(1)
            return -(advantages.detach() * (logprob - logprob.detach()).exp()).mean()
        """,
        "detached": """
            return -(advantages * logprobs.masked_fill(~mask, 0.0).sum(1)).mean().detach()
        """,
        "a number without a gradient": """
            return -(advantages * logprobs.masked_fill(~mask, 0.0).sum(1)).mean().item()
        """,
        "one loss for each completion": """
            return -advantages.detach() * logprobs.masked_fill(~mask, 0.0).sum(1)
        """,
        "a tuple": """
            loss = -(advantages.detach() * logprobs.masked_fill(~mask, 0.0).sum(1)).mean()
            return loss, {}
        """,
        "no return": "loss = -(advantages * logprobs.masked_fill(~mask, 0.0).sum(1)).mean()",
        "the package's own": """
            none = (float("inf"), float("inf"))
            old = logprobs.detach()
            loss, _ = clipped_surrogate(logprobs, old, advantages, mask, none, "constant")
            return loss * mask.size(1)
        """,
    },
    "02-loo": {
        "zeros": "return torch.zeros_like(rewards)",
        "the sign": """
            groups = rewards.view(-1, group_size)
            others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
            return (others - groups).flatten()
        """,
        "the own reward in the mean": """
            groups = rewards.view(-1, group_size)
            return (groups - groups.mean(1, keepdim=True)).flatten()
        """,
        "the others divided by all": """
            groups = rewards.view(-1, group_size)
            others = (groups.sum(1, keepdim=True) - groups) / group_size
            return (groups - others).flatten()
        """,
        "the mean of the others alone": """
            groups = rewards.view(-1, group_size)
            return ((groups.sum(1, keepdim=True) - groups) / (group_size - 1)).flatten()
        """,
        "all others of the batch": """
            return rewards - (rewards.sum() - rewards) / (len(rewards) - 1)
        """,
        "rows taken as group-major": """
            groups = rewards.view(group_size, -1)
            others = (groups.sum(0) - groups) / (group_size - 1)
            return (groups - others).flatten()
        """,
        "divided by the std": """
            groups = rewards.view(-1, group_size)
            others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
            return ((groups - others) / groups.std(1, keepdim=True).clamp(min=1e-6)).flatten()
        """,
        "right for groups of three only": """
            groups = rewards.view(-1, group_size)
            return (1.5 * (groups - groups.mean(1, keepdim=True))).flatten()
        """,
        "no return": """
            groups = rewards.view(-1, group_size)
            others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
        """,
        "not flattened": """
            groups = rewards.view(-1, group_size)
            return groups - (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
        """,
        "the package's own": """
            return group_advantages(rewards, group_size, "leave-one-out", "none")
        """,
    },
    "02-all": {
        "zeros": "return torch.zeros(scores.size(1))",
        "the sum over members": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return p[groups].prod(1) @ (advantages * scores[groups]).sum(1)
        """,
        "every group counts the same": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return (advantages * scores[groups]).mean((0, 1))
        """,
        "groups added up": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return (advantages * scores[groups]).mean(1).sum(0)
        """,
        "probabilities added": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return p[groups].sum(1) @ (advantages * scores[groups]).mean(1)
        """,
        "the probability of one member": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return p[groups[:, 0]] @ (advantages * scores[groups]).mean(1)
        """,
        "the sign": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return -(p[groups].prod(1) @ (advantages * scores[groups]).mean(1))
        """,
        "all groups as one": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), groups.numel()).view(-1, G, 1)
            return p[groups].prod(1) @ (advantages * scores[groups]).mean(1)
        """,
        "the exact gradient": "return (p * rewards) @ scores",
        "leave-one-out whatever is asked": """
            G = groups.size(1)
            paid = rewards[groups]
            advantages = paid - (paid.sum(1, keepdim=True) - paid) / (G - 1)
            return p[groups].prod(1) @ (advantages[..., None] * scores[groups]).mean(1)
        """,
        "the group's mean whatever is asked": """
            paid = rewards[groups]
            advantages = paid - paid.mean(1, keepdim=True)
            return p[groups].prod(1) @ (advantages[..., None] * scores[groups]).mean(1)
        """,
        "members in another order": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(G, -1).T[..., None]
            return p[groups].prod(1) @ (advantages * scores[groups]).mean(1)
        """,
        "one estimate for each group": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return (advantages * scores[groups]).mean(1)
        """,
        "no return": """
            chances = p[groups].prod(1)
        """,
    },
    "03-clip": {
        "zeros": "return 0 * logprobs.sum()",
        "the sign": """
            ratio, A = (logprobs - old_logprobs.detach()).exp(), advantages.detach()[:, None]
            objective = torch.minimum(ratio * A, ratio.clamp(1 - clip[0], 1 + clip[1]) * A)
            return objective[mask].mean()
        """,
        "the maximum": """
            ratio, A = (logprobs - old_logprobs.detach()).exp(), advantages.detach()[:, None]
            objective = torch.maximum(ratio * A, ratio.clamp(1 - clip[0], 1 + clip[1]) * A)
            return -objective[mask].mean()
        """,
        "no minimum": """
            ratio, A = (logprobs - old_logprobs.detach()).exp(), advantages.detach()[:, None]
            return -(ratio.clamp(1 - clip[0], 1 + clip[1]) * A)[mask].mean()
        """,
        "the minimum of the ratios": """
            ratio, A = (logprobs - old_logprobs.detach()).exp(), advantages.detach()[:, None]
            lower = torch.minimum(ratio, ratio.clamp(1 - clip[0], 1 + clip[1]))
            return -(lower * A)[mask].mean()
        """,
        "the sides of the clip swapped": """
            ratio, A = (logprobs - old_logprobs.detach()).exp(), advantages.detach()[:, None]
            objective = torch.minimum(ratio * A, ratio.clamp(1 - clip[1], 1 + clip[0]) * A)
            return -objective[mask].mean()
        """,
        "tokens after the stop": """
            ratio, A = (logprobs - old_logprobs.detach()).exp(), advantages.detach()[:, None]
            objective = torch.minimum(ratio * A, ratio.clamp(1 - clip[0], 1 + clip[1]) * A)
            return -objective.mean()
        """,
        "the mean over completions of their means": """
            ratio, A = (logprobs - old_logprobs.detach()).exp(), advantages.detach()[:, None]
            objective = torch.minimum(ratio * A, ratio.clamp(1 - clip[0], 1 + clip[1]) * A)
            return -((objective * mask).sum(1) / mask.sum(1)).mean()
        """,
        "a gradient through the old ones": """
            ratio, A = (logprobs - old_logprobs).exp(), advantages.detach()[:, None]
            objective = torch.minimum(ratio * A, ratio.clamp(1 - clip[0], 1 + clip[1]) * A)
            return -objective[mask].mean()
        """,
        "a gradient through the advantages": """
            ratio, A = (logprobs - old_logprobs.detach()).exp(), advantages[:, None]
            objective = torch.minimum(ratio * A, ratio.clamp(1 - clip[0], 1 + clip[1]) * A)
            return -objective[mask].mean()
        """,
        "old ones of this very policy": """
            ratio, A = (logprobs - logprobs.detach()).exp(), advantages.detach()[:, None]
            objective = torch.minimum(ratio * A, ratio.clamp(1 - clip[0], 1 + clip[1]) * A)
            return -objective[mask].mean()
        """,
        "the package's own": """
            return clipped_surrogate(logprobs, old_logprobs, advantages, mask, clip)[0]
        """,
    },
    "03-cut": {
        "nowhere": "return torch.zeros_like(ratio, dtype=torch.bool)",
        "outside the band, whatever the advantage": """
            return ((ratio > 1 + clip[1]) | (ratio < 1 - clip[0])) & (advantages != 0)
        """,
        "those that moved the wrong way": """
            too_high = (ratio > 1 + clip[1]) & (advantages < 0)
            too_low = (ratio < 1 - clip[0]) & (advantages > 0)
            return too_high | too_low
        """,
        "an advantage of 0 is cut too": """
            too_high = (ratio > 1 + clip[1]) & (advantages >= 0)
            too_low = (ratio < 1 - clip[0]) & (advantages <= 0)
            return too_high | too_low
        """,
        "the upper side alone": "return (ratio > 1 + clip[1]) & (advantages > 0)",
        "the sides of the clip swapped": """
            too_high = (ratio > 1 + clip[0]) & (advantages > 0)
            too_low = (ratio < 1 - clip[1]) & (advantages < 0)
            return too_high | too_low
        """,
        "the usual clip": """
            too_high = (ratio > 1.2) & (advantages > 0)
            too_low = (ratio < 0.8) & (advantages < 0)
            return too_high | too_low
        """,
        "the band on the logarithm": """
            too_high = (ratio.log() > clip[1]) & (advantages > 0)
            too_low = (ratio.log() < -clip[0]) & (advantages < 0)
            return too_high | too_low
        """,
        "all that moved as asked": "return (ratio - 1) * advantages > 0",
        "the package's own": """
            r, one = ratio.detach().clone().requires_grad_(), torch.ones(len(ratio), 1)
            loss, _ = clipped_surrogate(r.log()[:, None], 0 * one, advantages, one, clip)
            return (torch.autograd.grad(loss, r)[0] == 0) & (advantages != 0)
        """,
    },
    "03-gae": {
        "zeros": "return torch.zeros_like(values)",
        "the sign": """
            advantages = values - torch.cat([discount * values[1:], values.new_tensor([reward])])
            for t in reversed(range(len(values) - 1)):
                advantages[t] += discount * gae_lambda * advantages[t + 1]
            return advantages
        """,
        "lambda ignored": """
            left = torch.arange(len(values) - 1, -1, -1)
            return reward * discount**left - values
        """,
        "the one-step error": """
            return torch.cat([discount * values[1:], values.new_tensor([reward])]) - values
        """,
        "the reward for every token": """
            advantages = reward + discount * torch.cat([values[1:], values.new_zeros(1)]) - values
            for t in reversed(range(len(values) - 1)):
                advantages[t] += discount * gae_lambda * advantages[t + 1]
            return advantages
        """,
        "a value past the stop": """
            advantages = discount * torch.cat([values[1:], values[-1:]]) - values
            advantages[-1] += reward
            for t in reversed(range(len(values) - 1)):
                advantages[t] += discount * gae_lambda * advantages[t + 1]
            return advantages
        """,
        "the last value not subtracted": """
            last = values.new_tensor([reward])
            advantages = torch.cat([discount * values[1:] - values[:-1], last])
            for t in reversed(range(len(values) - 1)):
                advantages[t] += discount * gae_lambda * advantages[t + 1]
            return advantages
        """,
        "the next value undiscounted": """
            advantages = torch.cat([values[1:], values.new_tensor([reward])]) - values
            for t in reversed(range(len(values) - 1)):
                advantages[t] += discount * gae_lambda * advantages[t + 1]
            return advantages
        """,
        "the trace undiscounted": """
            advantages = torch.cat([discount * values[1:], values.new_tensor([reward])]) - values
            for t in reversed(range(len(values) - 1)):
                advantages[t] += gae_lambda * advantages[t + 1]
            return advantages
        """,
        "forwards in time": """
            advantages = torch.cat([discount * values[1:], values.new_tensor([reward])]) - values
            for t in range(len(values) - 1):
                advantages[t] += discount * gae_lambda * advantages[t + 1]
            return advantages
        """,
        "without the reward": """
            advantages = torch.cat([discount * values[1:], values.new_zeros(1)]) - values
            for t in reversed(range(len(values) - 1)):
                advantages[t] += discount * gae_lambda * advantages[t + 1]
            return advantages
        """,
        "without a discount": """
            advantages = torch.cat([values[1:], values.new_tensor([reward])]) - values
            for t in reversed(range(len(values) - 1)):
                advantages[t] += gae_lambda * advantages[t + 1]
            return advantages
        """,
        "the critic's targets": """
            advantages = torch.cat([discount * values[1:], values.new_tensor([reward])]) - values
            for t in reversed(range(len(values) - 1)):
                advantages[t] += discount * gae_lambda * advantages[t + 1]
            return advantages + values
        """,
        "the package's own": """
            live = torch.ones(1, len(values))
            return gae(torch.tensor([reward]), values[None], live, discount, gae_lambda)[0][0]
        """,
    },
    "04-advantages": {
        "a guard for the whole batch alone": """
            if rewards.amax() == rewards.amin():
                return torch.zeros_like(rewards)
            groups = rewards.view(-1, group_size)
            centred = groups - groups.mean(1, keepdim=True)
            return (centred / groups.std(1, keepdim=True)).flatten()
        """,
        "one group of equals silences all": """
            groups = rewards.view(-1, group_size)
            if (groups.amax(1) == groups.amin(1)).any():
                return torch.zeros_like(rewards)
            centred = groups - groups.mean(1, keepdim=True)
            return (centred / groups.std(1, keepdim=True)).flatten()
        """,
        "zeros": "return torch.zeros_like(rewards)",
        "the sign": """
            groups = rewards.view(-1, group_size)
            equal = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
            std = groups.std(1, keepdim=True).masked_fill(equal, 1.0)
            return ((groups.mean(1, keepdim=True) - groups) / std).masked_fill(equal, 0.0).flatten()
        """,
        "no guard": """
            groups = rewards.view(-1, group_size)
            centred = groups - groups.mean(1, keepdim=True)
            return (centred / groups.std(1, keepdim=True)).flatten()
        """,
        "nan made zero": """
            groups = rewards.view(-1, group_size)
            centred = groups - groups.mean(1, keepdim=True)
            return (centred / groups.std(1, keepdim=True)).nan_to_num(0.0).flatten()
        """,
        "a guard on the std": """
            groups = rewards.view(-1, group_size)
            centred, std = groups - groups.mean(1, keepdim=True), groups.std(1, keepdim=True)
            return (centred / std.masked_fill(std == 0, 1.0)).flatten()
        """,
        "an epsilon": """
            groups = rewards.view(-1, group_size)
            centred = groups - groups.mean(1, keepdim=True)
            return (centred / (groups.std(1, keepdim=True) + 1e-8)).flatten()
        """,
        "a guard and TRL's epsilon": """
            groups = rewards.view(-1, group_size)
            equal = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
            centred = groups - groups.mean(1, keepdim=True)
            scaled = centred / (groups.std(1, keepdim=True) + 1e-4)
            return scaled.masked_fill(equal, 0.0).flatten()
        """,
        "the mean and std of the whole batch": """
            if rewards.amax() == rewards.amin():
                return torch.zeros_like(rewards)
            return (rewards - rewards.mean()) / rewards.std()
        """,
        "not flattened": """
            groups = rewards.view(-1, group_size)
            equal = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
            std = groups.std(1, keepdim=True).masked_fill(equal, 1.0)
            return ((groups - groups.mean(1, keepdim=True)) / std).masked_fill(equal, 0.0)
        """,
        "a tuple": """
            groups = rewards.view(-1, group_size)
            return groups.mean(1), groups.std(1)
        """,
        "no return": "groups = rewards.view(-1, group_size)",
        "the mean does not keep its dimension": """
            groups = rewards.view(-1, group_size)
            return ((groups - groups.mean(1)) / groups.std(1)).flatten()
        """,
        "std with ddof 0": """
            groups = rewards.view(-1, group_size)
            equal = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
            std = groups.std(1, correction=0, keepdim=True).masked_fill(equal, 1.0)
            return ((groups - groups.mean(1, keepdim=True)) / std).masked_fill(equal, 0.0).flatten()
        """,
        "not divided": """
            groups = rewards.view(-1, group_size)
            equal = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
            return (groups - groups.mean(1, keepdim=True)).masked_fill(equal, 0.0).flatten()
        """,
        "the own reward left out of the mean": """
            groups = rewards.view(-1, group_size)
            equal = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
            std = groups.std(1, keepdim=True).masked_fill(equal, 1.0)
            others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
            return ((groups - others) / std).masked_fill(equal, 0.0).flatten()
        """,
        "rows taken as group-major": """
            groups = rewards.view(group_size, -1)
            equal = groups.amax(0) == groups.amin(0)
            std = groups.std(0).masked_fill(equal, 1.0)
            return ((groups - groups.mean(0)) / std).masked_fill(equal, 0.0).flatten()
        """,
        "the package's own": "return group_advantages(rewards, group_size)",
    },
    "04-loop": {
        "old log-probabilities afresh at each update": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                old_logprobs = logprobs.detach()
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "the ratio of the log-probabilities to themselves": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                old_logprobs = logprobs
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "old log-probabilities of the first rollout for ever": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            if rollout == 0:
                first_logprobs = completion_logprobs(policy, *answers).detach()
            old_logprobs = first_logprobs
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "old log-probabilities of zero": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = torch.zeros(batch.completions.shape)
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "no backward": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                optimizer.step()
        """,
        "no zero_grad": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                loss.backward()
                optimizer.step()
        """,
        "no step": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
        """,
        "zero_grad after backward": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                loss.backward()
                optimizer.zero_grad()
                optimizer.step()
        """,
        "the step before backward": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.step()
                optimizer.zero_grad()
                loss.backward()
        """,
        "zero_grad once a rollout": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            optimizer.zero_grad()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                loss.backward()
                optimizer.step()
        """,
        "one update a batch, right for one update only": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            logprobs = completion_logprobs(policy, *answers)
            loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        """,
        "two updates, whatever is asked": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(2):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "log-probabilities once a batch": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            logprobs = completion_logprobs(policy, *answers)
            for update in range(updates):
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "log-probabilities without a gradient": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers).detach()
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "new and old exchanged": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(old_logprobs, logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "uphill on the loss": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                (-loss).backward()
                optimizer.step()
        """,
        "groups mixed": """
            across = batch.rewards.view(group_size, -1).T.flatten()
            advantages = group_advantages(across, group_size)
            advantages = advantages.view(-1, group_size).T.flatten()
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "the mean of the whole batch": """
            advantages = batch.rewards - batch.rewards.mean()
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "the sign of the advantages": """
            advantages = -group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "groups of eight, whatever is asked": """
            advantages = group_advantages(batch.rewards, 8)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "advantages that carry a gradient": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                weighted = advantages * logprobs.sum(1).exp()
                loss = clipped_loss(logprobs, old_logprobs, weighted, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "advantages for each token": """
            advantages = group_advantages(batch.rewards, group_size)
            advantages = advantages[:, None].expand(batch.mask.shape)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "the mask forgotten": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                logprobs = completion_logprobs(policy, *answers)
                mask = torch.ones(batch.mask.shape) > 0
                loss = clipped_loss(logprobs, old_logprobs, advantages, mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "a copy is trained": """
            advantages = group_advantages(batch.rewards, group_size)
            answers = (env.prompts, batch.completions, group_size)
            old_logprobs = completion_logprobs(policy, *answers).detach()
            for update in range(updates):
                trainee = copy.deepcopy(policy)
                logprobs = completion_logprobs(trainee, *answers)
                loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "nothing": "pass",
        "the package's own": """
            improve(policy, env, "grpo", 1, generator, group_size)
        """,
    },
    "05-build": {
        "the sign": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return aggregate_tokens(objective, mask, how.aggregate)
        """,
        "no ratio, a plain policy gradient": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            return -aggregate_tokens(advantages.unsqueeze(1) * logprobs, mask, how.aggregate)
        """,
        "the ratio the wrong way": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (old_logprobs - logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "the same clip on both sides": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + low)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "the default clip": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = 0.2, 0.2
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "the default aggregate": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, "token")
        """,
        "the default scale": """
            advantages = group_advantages(rewards, group_size, how.baseline)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "own mean for leave-one-out": """
            baseline = "none" if how.baseline == "none" else "mean"
            advantages = group_advantages(rewards, group_size, baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "the whole batch as one group": """
            advantages = group_advantages(rewards, len(rewards), how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "std with ddof 0": """
            scale = "none" if how.scale == "std" else how.scale
            advantages = group_advantages(rewards, group_size, how.baseline, scale)
            if how.scale == "std":
                spread = rewards.view(-1, group_size).std(1, correction=0).clamp(min=1e-9)
                advantages = advantages / spread.repeat_interleave(group_size)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "tokens after the stop": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, torch.ones_like(mask), how.aggregate)
        """,
        "GSPO counts tokens after the stop": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "GSPO divides by the horizon": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.size(1)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "GSPO as a mean of ratios": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                mean = (log_ratio.exp() * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = mean.log()
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "GSPO with the whole ratio": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "CISPO's weight not held fixed": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "CISPO without a cap": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = ratio.detach() * advantages * logprobs
            else:
                objective = torch.minimum(ratio * advantages, clipped * advantages)
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "no minimum": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            advantages = advantages.unsqueeze(1)
            log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if how.ratio == "sequence":
                log_ratio = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
                log_ratio = log_ratio.expand_as(logprobs)
            ratio = log_ratio.exp()
            low, high = how.clip
            clipped = ratio.clamp(1 - low, 1 + high)
            if how.surrogate == "cispo":
                objective = clipped.detach() * advantages * logprobs
            else:
                objective = clipped * advantages
            return -aggregate_tokens(objective, mask, how.aggregate)
        """,
        "the package's own": """
            advantages = group_advantages(rewards, group_size, how.baseline, how.scale)
            return method_loss(how, logprobs, old_logprobs, advantages, mask)
        """,
    },
    "05-kl": {
        "unchanged": "return rewards",
        "the sign": """
            return rewards + beta * ((logprobs - ref_logprobs) * mask).sum(1).detach()
        """,
        "tokens after the stop": """
            return rewards - beta * (logprobs - ref_logprobs).sum(1).detach()
        """,
        "a mean over tokens": """
            total = ((logprobs - ref_logprobs) * mask).sum(1).detach()
            return rewards - beta * total / mask.sum(1)
        """,
        "not detached": "return rewards - beta * ((logprobs - ref_logprobs) * mask).sum(1)",
        "k2": """
            log_ratio = ((logprobs - ref_logprobs) * mask).sum(1).detach()
            return rewards - beta * log_ratio.square() / 2
        """,
        "k3": """
            penalty = kl_penalty(logprobs, ref_logprobs).detach() * mask
            return rewards - beta * penalty.sum(1)
        """,
        "no beta": "return rewards - ((logprobs - ref_logprobs) * mask).sum(1).detach()",
        "the batch's mean": """
            log_ratio = ((logprobs - ref_logprobs) * mask).sum(1).detach()
            return rewards - beta * log_ratio.mean()
        """,
        "probabilities": """
            change = ((logprobs.exp() - ref_logprobs.exp()) * mask).sum(1)
            return rewards - beta * change.detach()
        """,
    },
    "06-ratio": {
        "upside down": """
            logratio = (old_logprobs - logprobs).masked_fill(~mask, 0.0)
            if level == "prefix":
                logratio = logratio.cumsum(1)
            if level == "sequence":
                logratio = logratio.sum(1, keepdim=True).expand_as(mask)
            return logratio.exp().masked_fill(~mask, 0.0)
        """,
        "no exp": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level == "prefix":
                logratio = logratio.cumsum(1)
            if level == "sequence":
                logratio = logratio.sum(1, keepdim=True).expand_as(mask)
            return logratio.masked_fill(~mask, 0.0)
        """,
        "what stands after the stop is multiplied in": """
            logratio = logprobs - old_logprobs
            if level == "prefix":
                logratio = logratio.cumsum(1)
            if level == "sequence":
                logratio = logratio.sum(1, keepdim=True).expand_as(mask)
            return logratio.exp().masked_fill(~mask, 0.0)
        """,
        "the mask forgotten": """
            logratio = logprobs - old_logprobs
            if level == "prefix":
                logratio = logratio.cumsum(1)
            if level == "sequence":
                logratio = logratio.sum(1, keepdim=True).expand_as(mask)
            return logratio.exp()
        """,
        "not 0 after the stop": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level == "prefix":
                logratio = logratio.cumsum(1)
            if level == "sequence":
                logratio = logratio.sum(1, keepdim=True).expand_as(mask)
            return logratio.exp()
        """,
        "the token's ratio at every level": """
            return (logprobs - old_logprobs).exp().masked_fill(~mask, 0.0)
        """,
        "GSPO's mean": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level == "prefix":
                logratio = logratio.cumsum(1)
            if level == "sequence":
                logratio = logratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
            return logratio.exp().expand_as(mask).masked_fill(~mask, 0.0)
        """,
        "the sequence's mean over all positions": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level == "prefix":
                logratio = logratio.cumsum(1)
            if level == "sequence":
                logratio = logratio.mean(1, keepdim=True)
            return logratio.exp().expand_as(mask).masked_fill(~mask, 0.0)
        """,
        "the prefix stops before the token": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level == "prefix":
                logratio = logratio.cumsum(1) - logratio
            if level == "sequence":
                logratio = logratio.sum(1, keepdim=True).expand_as(mask)
            return logratio.exp().masked_fill(~mask, 0.0)
        """,
        "the prefix from the end": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level == "prefix":
                logratio = logratio.flip(1).cumsum(1).flip(1)
            if level == "sequence":
                logratio = logratio.sum(1, keepdim=True).expand_as(mask)
            return logratio.exp().masked_fill(~mask, 0.0)
        """,
        "the prefix down the batch": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level == "prefix":
                logratio = logratio.cumsum(0)
            if level == "sequence":
                logratio = logratio.sum(1, keepdim=True).expand_as(mask)
            return logratio.exp().masked_fill(~mask, 0.0)
        """,
        "the sequence's ratio for a prefix": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level != "token":
                logratio = logratio.sum(1, keepdim=True).expand_as(mask)
            return logratio.exp().masked_fill(~mask, 0.0)
        """,
        "the prefix's ratio for a sequence": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level != "token":
                logratio = logratio.cumsum(1)
            return logratio.exp().masked_fill(~mask, 0.0)
        """,
        "ratios added": """
            ratio = (logprobs - old_logprobs).exp().masked_fill(~mask, 0.0)
            if level == "prefix":
                ratio = ratio.cumsum(1)
            if level == "sequence":
                ratio = ratio.sum(1, keepdim=True).expand_as(mask)
            return ratio.masked_fill(~mask, 0.0)
        """,
        "zeros multiplied in": """
            ratio = (logprobs - old_logprobs).exp() * mask
            if level == "prefix":
                ratio = ratio.cumprod(1)
            if level == "sequence":
                ratio = ratio.prod(1, keepdim=True).expand_as(mask)
            return ratio * mask
        """,
        "the sequence as one column": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level == "sequence":
                return logratio.sum(1, keepdim=True).exp()
            if level == "prefix":
                logratio = logratio.cumsum(1)
            return logratio.exp().masked_fill(~mask, 0.0)
        """,
        "the sequence as one number an answer": """
            logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
            if level == "sequence":
                return logratio.sum(1).exp()
            if level == "prefix":
                logratio = logratio.cumsum(1)
            return logratio.exp().masked_fill(~mask, 0.0)
        """,
        "probabilities subtracted": "return (logprobs.exp() - old_logprobs.exp()) * mask",
        "logarithms divided": "return (logprobs / old_logprobs).masked_fill(~mask, 0.0)",
        "no return": "logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)",
        "a tuple": "return logprobs.exp(), old_logprobs.exp()",
        "a method that is not there": "return logprobs.minus(old_logprobs).exp()",
        "the lessons' own": """
            return correction_weights(logprobs - old_logprobs, logprobs, mask, 1.0)[level] * mask
        """,
    },
    "06-cap": {
        "the modes exchanged": """
            errors = []
            for limit in limits:
                capped = ratio.clamp(max=limit)
                if mode == "cap":
                    capped = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(capped)
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "capped in both modes": """
            errors = []
            for limit in limits:
                bias, variance = judge(ratio.clamp(max=limit))
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "masked in both modes": """
            errors = []
            for limit in limits:
                bias, variance = judge(ratio * (ratio <= limit))
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "the limit from below": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(min=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio <= limit, 0.0)
                bias, variance = judge(weights)
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "a mask without the ratio": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = (ratio <= limit).double()
                bias, variance = judge(weights)
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "no limit": """
            bias, variance = judge(ratio)
            return [bias**2 + variance / samples for limit in limits]
        """,
        "the bias not squared": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(weights)
                errors.append(bias + variance / samples)
            return errors
        """,
        "the variance not divided": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(weights)
                errors.append(bias**2 + variance)
            return errors
        """,
        "both divided": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(weights)
                errors.append((bias**2 + variance) / samples)
            return errors
        """,
        "divided by the root": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(weights)
                errors.append(bias**2 + variance / samples**0.5)
            return errors
        """,
        "the variance squared": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(weights)
                errors.append(bias**2 + (variance / samples) ** 2)
            return errors
        """,
        "bias and variance exchanged": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                variance, bias = judge(weights)
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "the bias alone": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                errors.append(judge(weights)[0] ** 2)
            return errors
        """,
        "the root of the error": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(weights)
                errors.append((bias**2 + variance / samples) ** 0.5)
            return errors
        """,
        "the first limit alone": """
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(weights)
                return [bias**2 + variance / samples]
        """,
        "the smallest error alone": """
            errors = []
            for limit in limits:
                weights = ratio.clamp(max=limit)
                if mode == "mask":
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(weights)
                errors.append(bias**2 + variance / samples)
            return min(errors)
        """,
        "weights limited again and again": """
            errors = []
            for limit in limits:
                ratio = ratio.clamp(max=limit)
                bias, variance = judge(ratio)
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "the judge's pair squared": """
            errors = []
            for limit in limits:
                errors.append(judge(ratio.clamp(max=limit)) ** 2)
            return errors
        """,
        "no return": """
            for limit in limits:
                bias, variance = judge(ratio.clamp(max=limit))
        """,
    },
    "07-adjoint": {
        "the sign of the reward": BACKWARDS.format("rho * (later + sine)", "costates"),
        "a cost instead of a reward": BACKWARDS.format("rho * (later + sine)", "-costates.abs()"),
        "the cosine": BACKWARDS.format("rho * (later + torch.cos(states[:, t + 1]))", "costates"),
        "without rho": BACKWARDS.format("later - sine", "costates"),
        "rho on the reward only": BACKWARDS.format("later - rho * sine", "costates"),
        "rho on the later costate only": BACKWARDS.format("rho * later - sine", "costates"),
        "divided by rho": BACKWARDS.format("(later - sine) / rho", "costates"),
        "reward one step early": BACKWARDS.format(
            "rho * (later - torch.sin(states[:, t]))", "costates"
        ),
        "only the next reward": BACKWARDS.format("-rho * sine", "costates"),
        "the last costate is left out": BACKWARDS.format(
            "rho * (later - sine)", "costates[:, :-1]"
        ),
        "the order in time": BACKWARDS.format("rho * (later - sine)", "costates.flip(1)"),
        "a row for each time": BACKWARDS.format("rho * (later - sine)", "costates.T"),
        "only the first costate": BACKWARDS.format("rho * (later - sine)", "costates[:, 0]"),
        "without the return": BACKWARDS.format("rho * (later - sine)", "None"),
        "a mean over rollouts": BACKWARDS.format("rho * (later - sine)", "costates.mean(0)"),
        "zeros": "return torch.zeros_like(states)",
        "starts from the last reward": """
            costates = -torch.sin(states)
            for t in reversed(range(states.shape[1] - 1)):
                costates[:, t] = rho * costates[:, t + 1] - torch.sin(states[:, t])
            return costates
        """,
        "the last costate is the last slope": """
            costates = -torch.sin(states)
            for t in reversed(range(states.shape[1] - 1)):
                costates[:, t] = rho * (costates[:, t + 1] - torch.sin(states[:, t + 1]))
            return costates
        """,
        "forwards in time": """
            costates = torch.zeros_like(states)
            for t in range(states.shape[1] - 1):
                costates[:, t] = rho * (costates[:, t + 1] - torch.sin(states[:, t + 1]))
            return costates
        """,
        "two steps at most": """
            now = -rho * torch.sin(states[:, 1:])
            later = -(rho**2) * torch.sin(states[:, 2:])
            pad = torch.nn.functional.pad
            return pad(now, (0, 1)) + pad(later, (0, 2))
        """,
        "a step too far": """
            costates = torch.zeros_like(states)
            for t in reversed(range(states.shape[1])):
                costates[:, t] = rho * (costates[:, t + 1] - torch.sin(states[:, t + 1]))
            return costates
        """,
        "the package's own": """
            return CosineTrack(states.shape[1] - 1, rho - 1, 0.0).costates(states)
        """,
    },
    "07-noise-free": {
        "the costate of the average rollout": ROLLOUTS.format(
            "noisy[:, 0].mean().item(), average[0, 0].item()"
        ),
        "zeros": ROLLOUTS.format("0.0, 0.0"),
        "the other way round": ROLLOUTS.format("quiet[0, 0].item(), noisy[:, 0].mean().item()"),
        "the noise-free one twice": ROLLOUTS.format("quiet[0, 0].item(), quiet[0, 0].item()"),
        "the mean twice": ROLLOUTS.format("noisy[:, 0].mean().item(), noisy[:, 0].mean().item()"),
        "states averaged first": ROLLOUTS.format("average[0, 0].item(), quiet[0, 0].item()"),
        "averaged over time too": ROLLOUTS.format("noisy.mean().item(), quiet.mean().item()"),
        "added up over time": ROLLOUTS.format("noisy.sum(1).mean().item(), quiet[0].sum().item()"),
        "one step late": ROLLOUTS.format("noisy[:, 1].mean().item(), quiet[0, 1].item()"),
        "the sign": ROLLOUTS.format("-noisy[:, 0].mean().item(), -quiet[0, 0].item()"),
        "a sum over rollouts": ROLLOUTS.format("noisy[:, 0].sum().item(), quiet[0, 0].item()"),
        "one noisy rollout": ROLLOUTS.format("noisy[0, 0].item(), quiet[0, 0].item()"),
        "the mean alone": ROLLOUTS.format("noisy[:, 0].mean().item()"),
        "all costates": ROLLOUTS.format("noisy[:, 0], quiet[:, 0]"),
        "without the return": ROLLOUTS.format("None"),
        "the package's closed form": ROLLOUTS.format(
            "track.value_gradient(start[0]).item(), quiet[0, 0].item()"
        ),
    },
    "08-costates": {
        "zeros": "return policy.head.weight.new_zeros(len(prompts), 6, policy.config.d_model)",
        "the gradient of the loss": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            with tap(at) as inputs:
                logits = policy(tokens)[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * mask
            return torch.autograd.grad(-terms.sum(), inputs)[0]
        """,
        "the logits one position late": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            with tap(at) as inputs:
                logits = policy(tokens)[0][:, 3:]
            logprobs = token_logprobs(logits, completions[:, :-1])
            terms = advantages[:, None] * (logprobs * mask[:, :-1])
            return torch.autograd.grad(terms.sum(), inputs)[0]
        """,
        "the stop taken for padding": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            with tap(at) as inputs:
                logits = policy(tokens)[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * (completions != 12)
            return torch.autograd.grad(terms.sum(), inputs)[0]
        """,
        "the mask ignored": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            with tap(at) as inputs:
                logits = policy(tokens)[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions)
            return torch.autograd.grad(terms.sum(), inputs)[0]
        """,
        "the mean over rows": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            with tap(at) as inputs:
                logits = policy(tokens)[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * mask
            return torch.autograd.grad(terms.sum(1).mean(), inputs)[0]
        """,
        "without the advantages": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            with tap(at) as inputs:
                logits = policy(tokens)[0][:, 2:]
            terms = token_logprobs(logits, completions) * mask
            return torch.autograd.grad(terms.sum(), inputs)[0]
        """,
        "always entering the first block": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            with tap(policy.blocks[0]) as inputs:
                logits = policy(tokens)[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * mask
            return torch.autograd.grad(terms.sum(), inputs)[0]
        """,
        "the package's own": """
            from minicf.rollout import Rollout
            rollout = Rollout(prompts, completions, mask, 0.0 * mask, advantages, len(prompts))
            return empirical_costates(policy, rollout, advantages, at)
        """,
    },
    "08-attention": {
        "nothing from the prompt's last token on": """
            attention = empirical_costates(policy, rollout, advantages, at)
            attention[:, 2:] = 0
            return attention
        """,
        "the very next later term only": """
            attention = empirical_costates(policy, rollout, advantages, at)
            attention[:, 2:] = 0
            for t, alone in enumerate(torch.eye(4)[1:], 1):
                term = empirical_costates(policy, rollout, advantages[:, None] * alone, at)
                attention[:, 1 + t] = term[:, 1 + t]
            return attention
        """,
        "zeros": "return torch.zeros_like(empirical_costates(policy, rollout, advantages, at))",
        "the whole": "return empirical_costates(policy, rollout, advantages, at)",
        "the own logits' part": """
            own = torch.zeros_like(empirical_costates(policy, rollout, advantages, at))
            for t, alone in enumerate(torch.eye(4)):
                term = empirical_costates(policy, rollout, advantages[:, None] * alone, at)
                own[:, 2 + t] = term[:, 2 + t]
            return own
        """,
        "every term at every position": """
            attention = empirical_costates(policy, rollout, advantages, at)
            for alone in torch.eye(4):
                attention -= empirical_costates(policy, rollout, advantages[:, None] * alone, at)
            return attention
        """,
        "the next token's term only": """
            attention = torch.zeros_like(empirical_costates(policy, rollout, advantages, at))
            for t, alone in enumerate(torch.eye(4)):
                term = empirical_costates(policy, rollout, advantages[:, None] * alone, at)
                attention[:, 1 + t] = term[:, 1 + t]
            return attention
        """,
        "the package's own": """
            whole = empirical_costates(policy, rollout, advantages, at)
            return whole - own_logit_costates(policy, rollout, advantages, at)
        """,
    },
    "08-read": {
        "zeros": "return torch.zeros(19, 3, 32).double()",
        "the sign of the loss": """
            with tap(policy.blocks[0]) as inputs:
                logprobs = completion_logprobs(
                    policy, env.prompts, rollout.completions, rollout.group_size
                )
            loss, _ = grpo_loss(
                logprobs, rollout.logprobs, advantages, rollout.mask, aggregate="constant"
            )
            loss.backward()
            return inputs[0].grad
        """,
        "the completions in place of the prompts": """
            with tap(policy.blocks[0]) as inputs:
                logprobs = completion_logprobs(
                    policy, env.prompts, rollout.completions, rollout.group_size
                )
            loss, _ = grpo_loss(
                logprobs, rollout.logprobs, advantages, rollout.mask, aggregate="constant"
            )
            loss.backward()
            return -inputs[1].grad
        """,
        "GRPO's own aggregate": """
            with tap(policy.blocks[0]) as inputs:
                logprobs = completion_logprobs(
                    policy, env.prompts, rollout.completions, rollout.group_size
                )
            loss, _ = grpo_loss(logprobs, rollout.logprobs, advantages, rollout.mask)
            loss.backward()
            return -inputs[0].grad
        """,
        "the mask forgotten": """
            with tap(policy.blocks[0]) as inputs:
                logprobs = completion_logprobs(
                    policy, env.prompts, rollout.completions, rollout.group_size
                )
            mask = torch.ones_like(rollout.mask)
            loss, _ = grpo_loss(logprobs, rollout.logprobs, advantages, mask, aggregate="constant")
            loss.backward()
            return -inputs[0].grad
        """,
        "another layer": """
            with tap(policy.blocks[1]) as inputs:
                logprobs = completion_logprobs(
                    policy, env.prompts, rollout.completions, rollout.group_size
                )
            loss, _ = grpo_loss(
                logprobs, rollout.logprobs, advantages, rollout.mask, aggregate="constant"
            )
            loss.backward()
            return -inputs[0].grad
        """,
        "rewards in place of advantages": """
            with tap(policy.blocks[0]) as inputs:
                logprobs = completion_logprobs(
                    policy, env.prompts, rollout.completions, rollout.group_size
                )
            loss, _ = grpo_loss(
                logprobs, rollout.logprobs, rollout.rewards, rollout.mask, aggregate="constant"
            )
            loss.backward()
            return -inputs[0].grad
        """,
        "the package's costates": """
            costates = empirical_costates(policy, rollout, advantages, policy.blocks[0])
            groups = costates[:, :3].unflatten(0, (len(env.prompts), rollout.group_size))
            return groups.sum(1) / rollout.mask.numel()
        """,
    },
    "08-cosine": {
        "dead groups count as 0": """
            lengths = left.flatten(1).norm(dim=1) * truth.flatten(1).norm(dim=1)
            products = (left * truth).flatten(1).sum(1)
            return products / lengths.where(lengths > 0, 1.0)
        """,
        "an epsilon": """
            lengths = left.flatten(1).norm(dim=1) * truth.flatten(1).norm(dim=1)
            return (left * truth).flatten(1).sum(1) / (lengths + 1e-4)
        """,
        "PyTorch's own, with its epsilon": """
            return torch.cosine_similarity(left.flatten(1), truth.flatten(1), eps=1e-4)
        """,
        "a mean over the tokens' cosines": """
            return torch.cosine_similarity(left, truth, dim=-1).mean(1)
        """,
        "no lengths": "return (left * truth).flatten(1).sum(1)",
        "one cosine for all": """
            return torch.cosine_similarity(left.flatten(), truth.flatten(), 0).expand(len(left))
        """,
        "the wrong sign": """
            return -(left * truth).flatten(1).sum(1) / (
                left.flatten(1).norm(dim=1) * truth.flatten(1).norm(dim=1)
            )
        """,
    },
    "09-slope": {
        "the expected slope": "return -0.5",
        "zeros": "return 0.0",
        "the mean square without its root": """
            n = torch.tensor(sizes).double().log()
            means = [costates.view(-1, k, costates.shape[1]).mean(1) for k in sizes]
            y = torch.stack([(m - truth).square().sum(1).mean().log() for m in means])
            return ((n - n.mean()) @ y / (n - n.mean()).square().sum()).item()
        """,
        "the sign": """
            n = torch.tensor(sizes).double().log()
            means = [costates.view(-1, k, costates.shape[1]).mean(1) for k in sizes]
            y = torch.stack([(m - truth).square().sum(1).mean().sqrt().log() for m in means])
            return -((n - n.mean()) @ y / (n - n.mean()).square().sum()).item()
        """,
        "around the draws' own mean": """
            n = torch.tensor(sizes).double().log()
            means = [costates.view(-1, k, costates.shape[1]).mean(1) for k in sizes]
            y = torch.stack([(m - m.mean(0)).square().sum(1).mean().sqrt().log() for m in means])
            return ((n - n.mean()) @ y / (n - n.mean()).square().sum()).item()
        """,
        "sums instead of means": """
            n = torch.tensor(sizes).double().log()
            means = [costates.view(-1, k, costates.shape[1]).sum(1) for k in sizes]
            y = torch.stack([(m - truth).square().sum(1).mean().sqrt().log() for m in means])
            return ((n - n.mean()) @ y / (n - n.mean()).square().sum()).item()
        """,
        "the mean of the errors' lengths": """
            n = torch.tensor(sizes).double().log()
            means = [costates.view(-1, k, costates.shape[1]).mean(1) for k in sizes]
            y = torch.stack([(m - truth).norm(dim=1).mean().log() for m in means])
            return ((n - n.mean()) @ y / (n - n.mean()).square().sum()).item()
        """,
        "the first group alone": """
            n = torch.tensor(sizes).double().log()
            y = torch.stack([(costates[:k].mean(0) - truth).norm().log() for k in sizes])
            return ((n - n.mean()) @ y / (n - n.mean()).square().sum()).item()
        """,
        "from end to end": """
            means = [costates.view(-1, k, costates.shape[1]).mean(1) for k in sizes]
            y = [(m - truth).square().sum(1).mean().sqrt().log() for m in means]
            return ((y[-1] - y[0]) / torch.tensor(sizes[-1] / sizes[0]).log()).item()
        """,
        "no logarithms": """
            n = torch.tensor(sizes).double()
            means = [costates.view(-1, k, costates.shape[1]).mean(1) for k in sizes]
            y = torch.stack([(m - truth).square().sum(1).mean().sqrt() for m in means])
            return ((n - n.mean()) @ y / (n - n.mean()).square().sum()).item()
        """,
    },
    "09-bias": {
        "zeros": "return torch.zeros(M.shape[1], dtype=M.dtype)",
        "the sign": "return (pi * Q) @ (M - pi @ M)",
        "nothing centred": "return -(pi * Q) @ M",
        "without the policy": "return -Q @ (M - pi @ M)",
        "means over tokens instead of under pi": """
            return -(pi * (Q - Q.mean())) @ (M - M.mean(0))
        """,
        "a covariance without pi": """
            return -(Q - Q.mean()) @ (M - M.mean(0)) / (len(Q) - 1)
        """,
        "its length alone": "return ((pi * Q) @ (M - pi @ M)).norm()",
        "the package's own": """
            bias, bounds = own_logit_bias(Q, pi, M)
            return bias
        """,
    },
    "10-pass": {
        "zeros": "return [0.0] * len(correct)",
        "plugging c/n in": "return [1 - (1 - c / n) ** k for c in correct]",
        "C(c, k) for C(n − c, k)": """
            return [1 - math.comb(c, k) / math.comb(n, k) for c in correct]
        """,
        "all k right": "return [math.comb(c, k) / math.comb(n, k) for c in correct]",
        "none right": "return [math.comb(n - c, k) / math.comb(n, k) for c in correct]",
        "pass@1 subtracted": """
            return [1 - math.comb(n - c, k) / math.comb(n, k) - c / n for c in correct]
        """,
        "pass@1": "return [c / n for c in correct]",
        "k times pass@1": "return [k * c / n for c in correct]",
        "one draw fewer": """
            return [1 - math.comb(n - c, k - 1) / math.comb(n, k - 1) for c in correct]
        """,
        "the mean over prompts": """
            shares = [1 - math.comb(n - c, k) / math.comb(n, k) for c in correct]
            return sum(shares) / len(shares) + 0.001
        """,
        "prompts thrown together": """
            total = n * len(correct)
            pooled = 1 - math.comb(total - sum(correct), k) / math.comb(total, k)
            return [pooled] * len(correct)
        """,
        "a product of fractions with replacement": """
            shares = []
            for c in correct:
                wrong = 1.0
                for draw in range(k):
                    wrong *= (n - c) / n
                shares.append(1 - wrong)
            return shares
        """,
        "the fraction upside down": """
            return [1 - math.comb(n, k) / max(math.comb(n - c, k), 1) for c in correct]
        """,
        "arguments swapped": """
            return [1 - math.comb(k, n - c) / math.comb(k, n) for c in correct]
        """,
        "the list as a number": "return 1 - math.comb(n - correct, k) / math.comb(n, k)",
        "no return": "shares = [1 - math.comb(n - c, k) / math.comb(n, k) for c in correct]",
        "a tuple": """
            shares = [1 - math.comb(n - c, k) / math.comb(n, k) for c in correct]
            return shares, n
        """,
        "the package's own": "return pass_at_k(torch.tensor(correct), n, k)",
    },
    "10-lead": {
        "zeros": "return [0.0, 0.0]",
        "the sign": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[1] - picks[0]
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
        "not as a share": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0]
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
        "the largest gain of all seeds": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.max()
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
        "the smallest score": """
            picks = [gains.gather(1, v.argmin(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
        "one pick for all seeds": """
            picks = [gains[:, v.mean(0).argmax()] / gains.amax(1) for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
        "over the wrong dimension": """
            picks = [gains.gather(0, v.argmax(0, keepdim=True))[0] / gains.amax(0)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
        "the largest scores": """
            leads = scores.amax(1) - rival_scores.amax(1)
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
        "our share alone": """
            leads = gains.gather(1, scores.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
        "the sum over seeds": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.sum(), leads.std() / len(leads) ** 0.5]
        """,
        "not paired": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            error = ((picks[0].var() + picks[1].var()) / len(gains)) ** 0.5
            return [picks[0].mean() - picks[1].mean(), error]
        """,
        "the standard deviation": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std()]
        """,
        "divided by S": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / len(leads)]
        """,
        "S below the squares": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std(correction=0) / len(leads) ** 0.5]
        """,
        "the variance": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.var() / len(leads)]
        """,
        "divided by the root of the checkpoints": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / gains.size(1) ** 0.5]
        """,
        "the lead alone": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            return (picks[0] - picks[1]).mean()
        """,
        "all leads": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            return picks[0] - picks[1]
        """,
        "no return": "picks = scores.argmax(1)",
        "an index without its seed": """
            picks = [gains[v.argmax(1)] / gains.amax(1) for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
    },
    "11-noise": {
        "nothing returned": """
            g = (p * r) @ s
            estimates = (r - baseline)[:, None] * s
            p @ (estimates - g).square().sum(1)
        """,
        "a tuple": """
            g = (p * r) @ s
            estimates = (r - baseline)[:, None] * s
            return p @ (estimates - g).square().sum(1), g
        """,
        "zeros": "return 0.0",
        "the second moment": """
            return p @ ((r - baseline)[:, None] * s).square().sum(1)
        """,
        "∇V taken off twice": """
            g = (p * r) @ s
            estimates = (r - baseline)[:, None] * s
            return p @ (estimates - g).square().sum(1) - g.square().sum()
        """,
        "over ‖∇V‖², as in lesson 02": """
            g = (p * r) @ s
            estimates = (r - baseline)[:, None] * s
            return p @ (estimates - g).square().sum(1) / g.square().sum()
        """,
        "the root": """
            g = (p * r) @ s
            estimates = (r - baseline)[:, None] * s
            return (p @ (estimates - g).square().sum(1)).sqrt()
        """,
        "b − r": """
            g = (p * r) @ s
            estimates = (baseline - r)[:, None] * s
            return p @ (estimates - g).square().sum(1)
        """,
        "a plain mean over answers": """
            g = (p * r) @ s
            estimates = (r - baseline)[:, None] * s
            return (estimates - g).square().sum(1).mean()
        """,
        "a sum over answers": """
            g = (p * r) @ s
            estimates = (r - baseline)[:, None] * s
            return (estimates - g).square().sum()
        """,
        "a mean over the weights": """
            g = (p * r) @ s
            estimates = (r - baseline)[:, None] * s
            return p @ (estimates - g).square().mean(1)
        """,
        "not squared": """
            g = (p * r) @ s
            estimates = (r - baseline)[:, None] * s
            return p @ (estimates - g).norm(dim=1)
        """,
        "no scores": "return p @ (r - baseline) ** 2",
        "∇V without p": """
            g = r @ s
            estimates = (r - baseline)[:, None] * s
            return p @ (estimates - g).square().sum(1)
        """,
        "no baseline": """
            g = (p * r) @ s
            return p @ (r[:, None] * s - g).square().sum(1)
        """,
        "the baseline is always V": """
            g = (p * r) @ s
            estimates = (r - p @ r)[:, None] * s
            return p @ (estimates - g).square().sum(1)
        """,
        "the wrong axis": """
            g = (p * r) @ s
            estimates = (r - baseline) * s
            return p @ (estimates - g).square().sum(1)
        """,
        "shapes that do not fit": "return p @ ((r - baseline) @ s - s[:, :1])[:2].square()",
        "the package's own": "return noise(p, r, s, baseline)",
    },
    "11-price": {
        "nothing returned": """
            V = p @ r
            variance = p @ (r - V).square()
            g = (p * r) @ s
            (variance * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
        """,
        "a tuple": "return p @ (r - p @ r).square() * (p @ s.square().sum(1)), G - 1",
        "divided by G": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s.square().sum(1)) + g.square().sum()) / G
        """,
        "not divided": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return variance * (p @ s.square().sum(1)) + g.square().sum()
        """,
        "divided twice": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1) ** 2
        """,
        "the baseline's error alone": """
            variance = p @ (r - p @ r).square()
            return variance * (p @ s.square().sum(1)) / (G - 1)
        """,
        "the pairs alone": "return ((p * r) @ s).square().sum() / (G - 1)",
        "precedence": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return variance * (p @ s.square().sum(1)) + g.square().sum() / (G - 1)
        """,
        "precedence, the other way": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return variance * (p @ s.square().sum(1)) / (G - 1) + g.square().sum()
        """,
        "one partner": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return variance * (p @ s.square().sum(1)) / (G - 1) + g.square().sum() / (G - 1) ** 2
        """,
        "‖g‖ not squared": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s.square().sum(1)) + g.norm()) / (G - 1)
        """,
        "a difference": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s.square().sum(1)) - g.square().sum()) / (G - 1)
        """,
        "the std": """
            std = (p @ (r - p @ r).square()).sqrt()
            g = (p * r) @ s
            return (std * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
        """,
        "the scores unweighted": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * s.square().sum(1).mean() + g.square().sum()) / (G - 1)
        """,
        "the scores added up": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * s.square().sum() + g.square().sum()) / (G - 1)
        """,
        "the mean length squared": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s.norm(dim=1)) ** 2 + g.square().sum()) / (G - 1)
        """,
        "r.var()": """
            g = (p * r) @ s
            return (r.var() * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
        """,
        "r.var() with n": """
            g = (p * r) @ s
            return (r.var(correction=0) * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
        """,
        "V in place of the variance": """
            g = (p * r) @ s
            return (p @ r * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
        """,
        "V (1 − V) for any rewards": """
            V = p @ r
            g = (p * r) @ s
            return (V * (1 - V) * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
        """,
        "E[r²] in place of the variance": """
            g = (p * r) @ s
            return (p @ r.square() * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
        """,
        "the whole noise": """
            V = p @ r
            g = (p * r) @ s
            known = p @ ((r - V)[:, None] * s - g).square().sum(1)
            price = (p @ (r - V).square() * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
            return known + price
        """,
        "over ‖∇V‖²": """
            variance = p @ (r - p @ r).square()
            signal = ((p * r) @ s).square().sum()
            return (variance * (p @ s.square().sum(1)) / signal + 1) / (G - 1)
        """,
        "∇V without p": """
            variance = p @ (r - p @ r).square()
            return (variance * (p @ s.square().sum(1)) + (r @ s).square().sum()) / (G - 1)
        """,
        "of the group's mean": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1) / G
        """,
        "the table's numbers": "return 0.1596 / (G - 1)",
        "the package's own": "return price_of_no_critic(p, r, s, G)",
    },
    "11-paired": {
        "nothing returned": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std() / len(d) ** 0.5
            [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "lists subtracted": "return ours - theirs",
        "the mean alone": "return (torch.tensor(ours) - torch.tensor(theirs)).mean().item()",
        "theirs − ours": """
            d = torch.tensor(theirs) - torch.tensor(ours)
            half = factor * d.std() / len(d) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "unpaired": """
            a, b = torch.tensor(ours), torch.tensor(theirs)
            half = factor * ((a.var() + b.var()) / len(a)) ** 0.5
            mean = a.mean() - b.mean()
            return [mean, mean - half, mean + half]
        """,
        "the std of all numbers": """
            both = torch.tensor([*ours, *theirs])
            half = factor * both.std() / len(both) ** 0.5
            mean = (torch.tensor(ours) - torch.tensor(theirs)).mean()
            return [mean, mean - half, mean + half]
        """,
        "n below": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std(correction=0) / len(d) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "the std, not the standard error": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std()
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "n below, and no root": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std(correction=0)
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "over n": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std() / len(d)
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "over √(n − 1)": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std() / (len(d) - 1) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "no factor": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = d.std() / len(d) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "always 1.96": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = 1.96 * d.std() / len(d) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "always 2.36": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = 2.36 * d.std() / len(d) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "the variance": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.var() / len(d) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "the range": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            return [d.mean(), d.min(), d.max()]
        """,
        "high before low": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std() / len(d) ** 0.5
            return [d.mean(), d.mean() + half, d.mean() - half]
        """,
        "low first": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std() / len(d) ** 0.5
            return [d.mean() - half, d.mean(), d.mean() + half]
        """,
        "distances": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std() / len(d) ** 0.5
            return [d.mean(), -half, half]
        """,
        "sorted": """
            d = torch.tensor(sorted(ours)) - torch.tensor(sorted(theirs))
            half = factor * d.std() / len(d) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
    },
}
