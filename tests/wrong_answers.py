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

def clip_loss(
    ratio="(logprobs - old_logprobs.detach()).exp()",
    A="advantages.detach()[:, None]",
    banded="ratio.clamp(1 - low, 1 + high)",
    objective="torch.minimum(ratio * A, banded * A)",
    too_high="(ratio > 1 + high) & (A > 0)",
    too_low="(ratio < 1 - low) & (A < 0)",
    loss="-objective[mask].mean()",
    cut="(too_high | too_low) & mask",
):
    """Lesson 03's clipped loss, right where nothing is given."""
    return f"""
        low, high = clip
        ratio = {ratio}
        A = {A}
        banded = {banded}
        objective = {objective}
        too_high = {too_high}
        too_low = {too_low}
        return {loss}, {cut}
    """


def loop_of_gae(
    length="int(mask[b].sum())",
    order="reversed(range(length))",
    r="rewards[b] if t == length - 1 else 0.0",
    delta="r + discount * v - values[b, t]",
    trace="discount * gae_lambda",
    start="v, later = 0.0, 0.0",
    end="advantages",
):
    """Lesson 03's GAE, right where nothing is given."""
    return f"""
        advantages = torch.zeros_like(values)
        for b in range(len(values)):
            length = {length}
            {start}
            for t in {order}:
                r = {r}
                delta = {delta}
                later = delta + {trace} * later
                advantages[b, t] = later
                v = values[b, t]
        return {end}
    """


def three_ratios(
    log="(logprobs - old_logprobs).masked_fill(~mask, 0.0)",
    prefix="log.cumsum(1)",
    sequence="log.sum(1, keepdim=True).expand_as(mask)",
    end="log.exp().masked_fill(~mask, 0.0)",
):
    """Lesson 06's ratios, right where nothing is given."""
    return f"""
        log = {log}
        if level == "prefix":
            log = {prefix}
        if level == "sequence":
            log = {sequence}
        return {end}
    """


def loop_over_limits(
    cap="ratio.clamp(max=limit)",
    mask="ratio.masked_fill(ratio > limit, 0.0)",
    pair="bias, variance",
    error="bias**2 + variance / samples",
    end="errors",
):
    """Lesson 06's squared errors, right where nothing is given."""
    return f"""
        errors = []
        for limit in limits:
            if mode == "cap":
                weights = {cap}
            else:
                weights = {mask}
            {pair} = judge(weights)
            errors.append({error})
        return {end}
    """


def advantages_of(
    dead="groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)",
    mean="groups.mean(1, keepdim=True)",
    std="groups.std(1, keepdim=True)",
):
    """Lesson 04's advantages, right where nothing is given."""
    return f"""
        groups = rewards.view(-1, group_size)
        dead = {dead}
        centred = groups - {mean}
        std = {std}
        return (centred / std.masked_fill(dead, 1.0)).masked_fill(dead, 0.0).flatten()
    """


def loop_of_updates(writer="policy", start="", end=""):
    """Lesson 04's steps 2 and 3, right where nothing is given."""
    return f"""
        advantages = group_advantages(batch.rewards, group_size)
        answers = (env.prompts, batch.completions, group_size)
        old_logprobs = completion_logprobs(policy, *answers).detach()
        for update in range(updates):
            {start}
            logprobs = completion_logprobs({writer}, *answers)
            loss = clipped_loss(logprobs, old_logprobs, advantages, batch.mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            {end}
    """


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
        "log_softmax over the rows": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(0).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "the prompt's tokens counted, too": """
            tokens = torch.cat([prompts, completions], 1)
            logits = policy(tokens[:, :-1])[0]
            logprobs = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
            stops = (tokens[:, 1:] == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "only = fed": """
            tokens = torch.cat([prompts[:, -1:], completions[:, :-1]], 1)
            logprobs = policy(tokens)[0].log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "argmax finds a stop where there is none": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            first = (completions == eos).long().argmax(1, keepdim=True)
            return (logprobs * (torch.arange(completions.size(1)) <= first)).sum(1)
        """,
        "the stop's token written in": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == 12).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "the prompt's length written in": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, 2 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * mask).sum(1)
        """,
        "the completions overwritten": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            stops = (completions == eos).long()
            after = stops.cumsum(1) - stops > 0
            completions[after] = 0
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            return logprobs.masked_fill(after, 0.0).sum(1)
        """,
        "a mask that wraps around": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            mask = (completions == eos).long().roll(1, 1).cumsum(1) == 0
            return (logprobs * mask).sum(1)
        """,
        "the mask turned round": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            logits = policy(tokens)[0][:, prompts.size(1) - 1 :]
            logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
            stops = (completions == eos).long()
            mask = stops.cumsum(1) - stops == 0
            return (logprobs * ~mask).sum(1)
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
        "the logarithm of success": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).logsumexp(0))
            return torch.stack(values)
        """,
        "the solutions of one prompt for all": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(env.prompts[8])
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.stack(values)
        """,
        "ten answers at most": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)[:10]
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.stack(values)
        """,
        "nothing from 13= on": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.stack(values[:13] + [0 * value for value in values[13:]])
        """,
        "a gradient for the last prompt only": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp().sum())
            return torch.cat([torch.stack(values[:-1]).detach(), values[-1][None]])
        """,
        "the mean over four places": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).mean(1).exp().sum())
            return torch.stack(values)
        """,
        "the one-digit answer missing": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * mask).sum(1).exp()[mask.all(1)].sum())
            return torch.stack(values)
        """,
        "the mask of success turned round": """
            values = []
            for prompt in env.prompts:
                rows = env.solutions(prompt)
                logprobs = completion_logprobs(policy, prompt.expand(len(rows), -1), rows)
                mask = completion_mask(rows, env.eos)
                values.append((logprobs * ~mask).sum(1).exp().sum())
            return torch.stack(values)
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
        "requires_grad_(False) on the advantages": """
            advantages = advantages.requires_grad_(False)
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
        "the log-probabilities overwritten": """
            logprob = logprobs.masked_fill_(~mask, 0.0).sum(1)
            return -(advantages.detach() * logprob).mean()
        """,
        "the advantages detached in place": """
            return -(advantages.detach_() * logprobs.masked_fill(~mask, 0.0).sum(1)).mean()
        """,
        "the advantages normalised": """
            normal = (advantages - advantages.mean()) / advantages.std(correction=0)
            return -(normal.detach() * logprobs.masked_fill(~mask, 0.0).sum(1)).mean()
        """,
        "divided by one completion less": """
            total = (advantages.detach() * logprobs.masked_fill(~mask, 0.0).sum(1)).sum()
            return -total / (len(advantages) - 1)
        """,
        "divided by two": """
            return -(advantages.detach() * logprobs.masked_fill(~mask, 0.0).sum(1)).sum() / 2
        """,
        "the mask turned round": """
            return -(advantages.detach() * logprobs.masked_fill(mask, 0.0).sum(1)).mean()
        """,
        "the size of the advantages alone": """
            return -(advantages.abs().detach() * logprobs.masked_fill(~mask, 0.0).sum(1)).mean()
        """,
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
        "groups by columns, added up by rows": """
            groups = rewards.view(group_size, -1)
            others = groups.sum(1, keepdim=True) - groups
            return (groups - others / (group_size - 1)).flatten()
        """,
        "added up over prompts": """
            groups = rewards.view(-1, group_size)
            others = groups.sum(0) - groups
            return (groups - others / (group_size - 1)).flatten()
        """,
        "the own reward in the sum": """
            groups = rewards.view(-1, group_size)
            return (groups - groups.sum(1, keepdim=True) / (group_size - 1)).flatten()
        """,
        "only the next reward": """
            groups = rewards.view(-1, group_size)
            return (groups - groups.roll(-1, 1)).flatten()
        """,
        "cut off at 1": """
            groups = rewards.view(-1, group_size)
            others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
            return (groups - others).clamp(-1, 1).flatten()
        """,
        "right or wrong in the place of rewards": """
            groups = (rewards == rewards.max()).float().view(-1, group_size)
            others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
            return (groups - others).flatten()
        """,
        "a list": """
            groups = rewards.view(-1, group_size)
            others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
            return (groups - others).flatten().tolist()
        """,
        "the rewards changed in place": """
            groups = rewards.view(-1, group_size)
            groups -= (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
            return groups.flatten()
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
        "the batch's mean": """
            return rewards - rewards.mean()
        """,
        "every G-th row": """
            advantages = []
            for i in range(len(rewards)):
                mates = [k for k in range(len(rewards)) if k % group_size == i % group_size]
                mates.remove(i)
                advantages.append(rewards[i] - rewards[mates].mean())
            return torch.stack(advantages)
        """,
        "the package's own": """
            return group_advantages(rewards, group_size, "leave-one-out", "none")
        """,
    },
    "02-all": {
        "the first member's score for all": """
            chances = p[groups].prod(1)
            return chances @ (advantages * scores[groups][:, :1]).mean(1)
        """,
        "zeros": "return torch.zeros(scores.size(1))",
        "the sum over members": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return p[groups].prod(1) @ (advantages * scores[groups]).sum(1)
        """,
        "the mean over groups": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            estimates = (advantages * scores[groups]).mean(1)
            return (p[groups].prod(1)[:, None] * estimates).mean(0)
        """,
        "members weighted one by one": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return (p[groups][..., None] * advantages * scores[groups]).mean(1).sum(0)
        """,
        "the mean of the members' probabilities": """
            G = groups.size(1)
            advantages = advantages_of(rewards[groups].flatten(), G).view(-1, G, 1)
            return p[groups].mean(1) @ (advantages * scores[groups]).mean(1)
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
        "zeros": "return 0 * logprobs.sum(), torch.zeros_like(mask)",
        "nothing returned": "loss = -(logprobs - old_logprobs).exp()[mask].mean()",
        "the loss alone": "return -(logprobs - old_logprobs).exp()[mask].mean()",
        "a number": clip_loss(loss="-objective[mask].mean().item()"),
        "the sign": clip_loss(loss="objective[mask].mean()"),
        "the maximum": clip_loss(objective="torch.maximum(ratio * A, banded * A)"),
        "no minimum": clip_loss(objective="banded * A"),
        "nothing is clipped": clip_loss(objective="ratio * A"),
        "the minimum of the ratios": clip_loss(objective="torch.minimum(ratio, banded) * A"),
        "the sides of the clip swapped": clip_loss(banded="ratio.clamp(1 - high, 1 + low)"),
        "the usual clip": clip_loss(banded="ratio.clamp(0.8, 1.2)"),
        "the clip of the first check": clip_loss(banded="ratio.clamp(0.9, 1.4)"),
        "the product clipped": clip_loss(
            objective="torch.minimum(ratio * A, (ratio * A).clamp(1 - low, 1 + high))"
        ),
        "the band is low to high": clip_loss(banded="ratio.clamp(low, high)"),
        "tokens after the stop": clip_loss(loss="-objective.mean()"),
        "the stop does not count": clip_loss(
            loss="-objective[mask & (mask.flip(1).cumsum(1).flip(1) > 1)].mean()"
        ),
        "the mask multiplied, and all places counted": clip_loss(loss="-(objective * mask).mean()"),
        "a sum": clip_loss(loss="-objective[mask].sum()"),
        "the mean over answers of their sums": clip_loss(loss="-(objective * mask).sum(1).mean()"),
        "the mean over answers of their means": clip_loss(
            loss="-((objective * mask).sum(1) / mask.sum(1)).mean()"
        ),
        "the ratio upside down": clip_loss(ratio="(old_logprobs.detach() - logprobs).exp()"),
        "no exponential": clip_loss(ratio="logprobs - old_logprobs.detach()"),
        "the log-probabilities divided": clip_loss(ratio="logprobs / old_logprobs.detach()"),
        "old ones of this very policy": clip_loss(ratio="(logprobs - logprobs.detach()).exp()"),
        "advantages along the tokens": clip_loss(A="advantages.detach()"),
        "a gradient through the old ones": clip_loss(ratio="(logprobs - old_logprobs).exp()"),
        "a gradient through the advantages": clip_loss(A="advantages[:, None]"),
        "everything detached": clip_loss(loss="-objective[mask].mean().detach()"),
        "the clipped ratio detached": clip_loss(banded="ratio.detach().clamp(1 - low, 1 + high)"),
        "every ratio outside the band detached": clip_loss(
            loss="-objective.where(ratio == banded, objective.detach())[mask].mean()"
        ),
        "the plain policy gradient": clip_loss(
            loss="-objective[mask].mean().detach()"
            " - ((logprobs - logprobs.detach()) * A)[mask].mean()"
        ),
        "nothing is clipped in the gradient": clip_loss(
            objective="ratio * A + (torch.minimum(ratio * A, banded * A) - ratio * A).detach()"
        ),
        "the ratio is that of the answer": clip_loss(
            ratio="((logprobs - old_logprobs.detach()) * mask).sum(1, keepdim=True).exp()"
            ".expand_as(logprobs)"
        ),
        "both ends from low": clip_loss(banded="ratio.clamp(1 - low, 1 + low)"),
        "both ends from high": clip_loss(banded="ratio.clamp(1 - high, 1 + high)"),
        "the package's own": """
            loss, stats = clipped_surrogate(logprobs, old_logprobs, advantages, mask, clip)
            return loss, torch.zeros_like(mask)
        """,
        "nothing for the second half": clip_loss(cut="None"),
        "nowhere": clip_loss(cut="torch.zeros_like(mask)"),
        "where the gradient is whole": clip_loss(cut="~(too_high | too_low) & mask"),
        "outside the band, whatever the advantage": clip_loss(cut="(ratio != banded) & mask"),
        "outside the band, with an advantage": clip_loss(cut="(ratio != banded) & mask & (A != 0)"),
        "those that moved the wrong way": clip_loss(
            too_high="(ratio > 1 + high) & (A < 0)", too_low="(ratio < 1 - low) & (A > 0)"
        ),
        "an advantage of 0 is cut too": clip_loss(
            too_high="(ratio > 1 + high) & (A >= 0)", too_low="(ratio < 1 - low) & (A <= 0)"
        ),
        "an advantage of 0 is cut above": clip_loss(too_high="(ratio > 1 + high) & (A >= 0)"),
        "an advantage of 0 is cut below": clip_loss(too_low="(ratio < 1 - low) & (A <= 0)"),
        "both ends of the band from low": clip_loss(too_high="(ratio > 1 + low) & (A > 0)"),
        "zeros and ones": clip_loss(cut="((too_high | too_low) & mask).float()"),
        "the upper side alone": clip_loss(cut="too_high & mask"),
        "the lower side alone": clip_loss(cut="too_low & mask"),
        "the sides of the band swapped": clip_loss(
            too_high="(ratio > 1 + low) & (A > 0)", too_low="(ratio < 1 - high) & (A < 0)"
        ),
        "the usual band": clip_loss(
            too_high="(ratio > 1.2) & (A > 0)", too_low="(ratio < 0.8) & (A < 0)"
        ),
        "compared with low and high": clip_loss(
            too_high="(ratio > high) & (A > 0)", too_low="(ratio < low) & (A < 0)"
        ),
        "the band on the logarithm": clip_loss(
            too_high="(ratio.log() > high) & (A > 0)", too_low="(ratio.log() < -low) & (A < 0)"
        ),
        "all that moved as asked": clip_loss(cut="((ratio - 1) * A > 0) & mask"),
        "cut after the stop": clip_loss(cut="too_high | too_low"),
        "one flag for each answer": clip_loss(cut="((too_high | too_low) & mask).any(1)"),
        "no parentheses around comparisons": clip_loss(too_high="ratio > 1 + high & A > 0"),
        "and in the place of &": clip_loss(too_high="(ratio > 1 + high) and (A > 0)"),
        "a share": clip_loss(cut="((too_high | too_low) & mask).float().mean()"),
    },
    "03-gae": {
        "zeros": "return torch.zeros_like(values)",
        "the sign": loop_of_gae(end="-advantages"),
        "lambda ignored": loop_of_gae(trace="discount"),
        "the one-step error": loop_of_gae(trace="0.0"),
        "the reward for every token": loop_of_gae(r="rewards[b]"),
        "the reward at the end of the row": loop_of_gae(r="rewards[b] * (t == len(mask[b]) - 1)"),
        "the reward alone": loop_of_gae(delta="r"),
        "without the reward": loop_of_gae(r="0.0"),
        "a value past the stop": loop_of_gae(
            delta="r + discount * (values[b, t + 1] if t + 1 < len(mask[b]) else 0) - values[b, t]"
        ),
        "the mask is not used": loop_of_gae(length="len(mask[b])"),
        "the mask is used too late": loop_of_gae(length="len(mask[b])", end="advantages * mask"),
        "no value subtracted": loop_of_gae(delta="r + discount * v"),
        "the last value not subtracted": loop_of_gae(
            delta="r + discount * v - values[b, t] * (t < length - 1)"
        ),
        "the next value undiscounted": loop_of_gae(delta="r + v - values[b, t]"),
        "the trace undiscounted": loop_of_gae(trace="gae_lambda"),
        "without a discount": loop_of_gae(delta="r + v - values[b, t]", trace="gae_lambda"),
        "the later advantage whole": loop_of_gae(trace="1.0"),
        "the discount of the example": loop_of_gae(
            delta="r + 0.9 * v - values[b, t]", trace="0.9 * gae_lambda"
        ),
        "the lambda of the example": loop_of_gae(trace="0.5 * discount"),
        "one minus lambda": loop_of_gae(trace="(1 - gae_lambda) * discount"),
        "the reward after the last token": loop_of_gae(r="rewards[b] if t == length else 0.0"),
        "forwards in time": loop_of_gae(
            order="range(length)",
            delta="r + discount * (values[b, t + 1] if t + 1 < length else 0.0) - values[b, t]",
        ),
        "the critic's targets": loop_of_gae(end="(advantages + values) * mask"),
        "advantages and the critic's targets": loop_of_gae(end="advantages, advantages + values"),
        "A of the answer before": loop_of_gae(start="v, later = 0.0, later if b else 0.0"),
        "A and V of the answer before": loop_of_gae(
            start="v, later = (v, later) if b else (0.0, 0.0)"
        ),
        "the reward at the first token": loop_of_gae(r="rewards[b] if t == 0 else 0.0"),
        "the value added": loop_of_gae(delta="r + discount * v + values[b, t]"),
        "discount and lambda swapped": loop_of_gae(delta="r + gae_lambda * v - values[b, t]"),
        "lambda in the one-step error": loop_of_gae(
            delta="r + discount * gae_lambda * v - values[b, t]"
        ),
        "the last value after the end": loop_of_gae(
            delta="r + discount * (values[b, t] if t == length - 1 else v) - values[b, t]"
        ),
        "the reward minus the value": loop_of_gae(end="(rewards[:, None] - values) * mask"),
        "one token too few": loop_of_gae(length="int(mask[b].sum()) - 1"),
        "the last token passed over": loop_of_gae(order="reversed(range(length - 1))"),
        "one token too many": loop_of_gae(length="min(int(mask[b].sum()) + 1, len(mask[b]))"),
        "no return": loop_of_gae().replace("return ", ""),
        "one number for each answer": loop_of_gae(end="advantages.sum(1)"),
        "an index too far": loop_of_gae(delta="r + discount * values[b, t + 1] - values[b, t]"),
        "the package's own": "return gae(rewards, values, mask, discount, gae_lambda)[0]",
    },
    "04-advantages": {
        "dead if the first equals the last": advantages_of(dead="groups[:, :1] == groups[:, -1:]"),
        "dead if the std is small": advantages_of(dead="groups.std(1, keepdim=True) < 0.1"),
        "dead if all or none are above one half": advantages_of(
            dead="((groups > 0.5).sum(1, keepdim=True) % group_size) == 0"
        ),
        "dead if all are near the mean": advantages_of(
            dead="(groups - groups.mean(1, keepdim=True)).abs().amax(1, keepdim=True) < 0.05"
        ),
        "rewards rounded to one decimal": advantages_of().replace(
            "rewards.view", "rewards.round(decimals=1).view"
        ),
        "rewards rounded to two decimals": advantages_of().replace(
            "rewards.view", "rewards.round(decimals=2).view"
        ),
        "dead if the std is below 1e-6": advantages_of(dead="groups.std(1, keepdim=True) < 1e-6"),
        "dead if the rewards are within 0.01": advantages_of(
            dead="groups.amax(1, keepdim=True) - groups.amin(1, keepdim=True) < 0.01"
        ),
        "dead if the rewards are close": advantages_of(
            dead="torch.isclose(groups.amax(1, keepdim=True), groups.amin(1, keepdim=True))"
        ),
        "a smallest std": advantages_of(std="groups.std(1, keepdim=True).clamp(min=1e-2)"),
        "dead if all are below .31": advantages_of(
            dead="(groups < 0.31).all(1, keepdim=True) | (groups == 1).all(1, keepdim=True)"
        ),
        "in place": """
            groups = rewards.view(-1, group_size)
            equal = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
            std = groups.std(1, keepdim=True).masked_fill(equal, 1.0)
            groups -= groups.mean(1, keepdim=True)
            groups /= std
            groups.masked_fill_(equal, 0.0)
            return rewards
        """,
        "the std of the whole batch": advantages_of(std="rewards.std().expand(len(groups), 1)"),
        "the mean of the whole batch": advantages_of(mean="rewards.mean()"),
        "the variance for the std": advantages_of(std="groups.var(1, keepdim=True)"),
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
        "another policy's new log-probabilities": loop_of_updates(writer="early"),
        "old log-probabilities of the update before": loop_of_updates(
            end="old_logprobs = logprobs.detach()"
        ),
        "a new batch for each update": """
            for update in range(updates):
                batch = sample(policy, env, env.prompts, group_size, generator)
                advantages = group_advantages(batch.rewards, group_size)
                answers = (env.prompts, batch.completions, group_size)
                logprobs = completion_logprobs(policy, *answers)
                loss = clipped_loss(logprobs, batch.logprobs, advantages, batch.mask)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """,
        "a point of the curve at each update": loop_of_updates(end="curve.append(0.5)"),
        "an optimiser of its own": loop_of_updates(
            start="optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)"
        ),
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
    "05-cispo": {
        "a sum without the mask": """
            weight = (logprobs - old_logprobs).exp().clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs).sum() / mask.sum()
        """,
        "the product capped": """
            weight = (logprobs - old_logprobs).exp().detach()
            return -((weight * advantages.unsqueeze(1)).clamp(max=1 + high) * logprobs)[mask].mean()
        """,
        "the advantage without its sign": """
            weight = (logprobs - old_logprobs).exp().clamp(max=1 + high).detach()
            return -(weight * advantages.abs().unsqueeze(1) * logprobs)[mask].mean()
        """,
        "the sign": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return (weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "the weight not held fixed": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high)
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "all detached": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs.detach())[mask].mean()
        """,
        "log π detached in place of the weight": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high)
            return -(weight * advantages.unsqueeze(1) * logprobs.detach())[mask].mean()
        """,
        "a number, not a tensor": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean().item()
        """,
        "no cap": """
            ratio = (logprobs - old_logprobs).exp()
            return -(ratio.detach() * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "the cap at high": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "cut from below, too": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(1 - high, 1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "capped only where A is positive": """
            ratio = (logprobs - old_logprobs).exp()
            A = advantages.unsqueeze(1)
            weight = torch.where(A > 0, ratio.clamp(max=1 + high), ratio).detach()
            return -(weight * A * logprobs)[mask].mean()
        """,
        "GRPO's minimum": """
            ratio = (logprobs - old_logprobs).exp()
            A = advantages.unsqueeze(1)
            clipped = ratio.clamp(1 - high, 1 + high)
            return -torch.minimum(ratio * A, clipped * A)[mask].mean()
        """,
        "no log π": """
            weight = (logprobs - old_logprobs).exp().clamp(max=1 + high)
            return -(weight * advantages.unsqueeze(1))[mask].mean()
        """,
        "no ratio": "return -(advantages.unsqueeze(1) * logprobs)[mask].mean()",
        "the ratio upside down": """
            ratio = (old_logprobs - logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "no exponential": """
            ratio = logprobs - old_logprobs
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "π in place of log π": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs.exp())[mask].mean()
        """,
        "GSPO's ratio": """
            d = (logprobs - old_logprobs).masked_fill(~mask, 0.0).sum(1, keepdim=True)
            ratio = (d / mask.sum(1, keepdim=True)).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "no unsqueeze": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages * logprobs)[mask].mean()
        """,
        "unsqueezed along the wrong axis": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(0) * logprobs)[mask].mean()
        """,
        "the mean within each answer first": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            objective = (weight * advantages.unsqueeze(1) * logprobs).masked_fill(~mask, 0.0)
            return -(objective.sum(1) / mask.sum(1)).mean()
        """,
        "no mask": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs).mean()
        """,
        "a mean over B·T": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs * mask).mean()
        """,
        "a sum": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].sum()
        """,
        "one number an answer": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            objective = weight * advantages.unsqueeze(1) * logprobs * mask
            return -objective.sum(1) / mask.sum(1)
        """,
        "nothing returned": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "the loss and its stats": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            loss = -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
            return loss, weight
        """,
        "the example's cap": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1.2).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "the example's number of tokens": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].sum() / 9
        """,
        "minimum and maximum exchanged": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(min=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "the ratio in place of log π": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * ratio)[mask].mean()
        """,
        "the log-ratio in place of log π": """
            log_ratio = logprobs - old_logprobs
            weight = log_ratio.exp().clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * log_ratio)[mask].mean()
        """,
        "no weight above the cap": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.masked_fill(ratio > 1 + high, 0.0).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "no gradient above the cap": """
            ratio = (logprobs - old_logprobs).exp()
            weight = ratio.clamp(max=1 + high).detach()
            inside = torch.where(ratio > 1 + high, logprobs.detach(), logprobs)
            return -(weight * advantages.unsqueeze(1) * inside)[mask].mean()
        """,
        "old_logprobs changed in place": """
            old_logprobs -= logprobs.detach()
            weight = (-old_logprobs).exp().clamp(max=1 + high).detach()
            return -(weight * advantages.unsqueeze(1) * logprobs)[mask].mean()
        """,
        "the package's own": """
            return cispo_loss(logprobs, old_logprobs, advantages, mask, (math.inf, high))[0]
        """,
    },
    "05-kl": {
        "the reference changed in place": """
            ref_logprobs -= logprobs.detach()
            return rewards + beta * (ref_logprobs * mask).sum(1)
        """,
        "the log-probabilities changed in place": """
            logprobs = logprobs.detach()
            logprobs -= ref_logprobs
            return rewards - beta * (logprobs * mask).sum(1)
        """,
        "padding overwritten": """
            logprobs.data.masked_fill_(~mask, 0.0)
            ref_logprobs.masked_fill_(~mask, 0.0)
            return rewards - beta * (logprobs - ref_logprobs).detach().sum(1)
        """,
        "the mask on logprobs alone": """
            d = logprobs.detach().masked_fill(~mask, 0.0) - ref_logprobs
            return rewards - beta * d.sum(1)
        """,
        "the mask inverted": """
            d = (logprobs - ref_logprobs).detach().masked_fill(mask, 0.0)
            return rewards - beta * d.sum(1)
        """,
        "the first token": """
            return rewards - beta * (logprobs - ref_logprobs).detach()[:, 0]
        """,
        "beta is always 0.5": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - 0.5 * d.sum(1)
        """,
        "unchanged": "return rewards",
        "the sign": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards + beta * d.sum(1)
        """,
        "no beta": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - d.sum(1)
        """,
        "tokens after the stop": """
            return rewards - beta * (logprobs - ref_logprobs).detach().sum(1)
        """,
        "a mean over the answer's tokens": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.sum(1) / mask.sum(1)
        """,
        "a mean over T": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.mean(1)
        """,
        "not detached": """
            d = (logprobs - ref_logprobs).masked_fill(~mask, 0.0)
            return rewards - beta * d.sum(1)
        """,
        "k2": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.sum(1).square() / 2
        """,
        "k2 of each token": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * (d.square() / 2).sum(1)
        """,
        "k3": """
            penalty = kl_penalty(logprobs, ref_logprobs).detach() * mask
            return rewards - beta * penalty.sum(1)
        """,
        "the batch's mean": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.sum(1).mean()
        """,
        "the batch's sum": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.sum()
        """,
        "probabilities": """
            change = (logprobs.exp() - ref_logprobs.exp()).detach() * mask
            return rewards - beta * change.sum(1)
        """,
        "the absolute value": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.sum(1).abs()
        """,
        "the ratio, not its logarithm": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.sum(1).exp()
        """,
        "no reference": "return rewards - beta * (logprobs * mask).sum(1).detach()",
        "only the penalty": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return beta * d.sum(1)
        """,
        "the rewards changed in place": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            rewards -= beta * d.sum(1)
            return rewards
        """,
        "a list": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return (rewards - beta * d.sum(1)).tolist()
        """,
        "the last column": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d[:, -1]
        """,
        "weighted by π again": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * (logprobs.exp().detach() * d).sum(1)
        """,
        "k3 of the whole answer": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * ((-d.sum(1)).exp() - 1 + d.sum(1))
        """,
        "only right answers pay": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.sum(1) * rewards
        """,
        "cut off at 0": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.sum(1).clamp(min=0)
        """,
        "each token cut off at 0": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards - beta * d.clamp(min=0).sum(1)
        """,
        "a reward for each token": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return rewards.unsqueeze(1) - beta * d
        """,
        "only the last token": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            last = d.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
            return rewards - beta * last
        """,
        "no unsqueeze": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            return (rewards - beta * d).sum(1)
        """,
        "nothing returned": """
            d = (logprobs - ref_logprobs).detach().masked_fill(~mask, 0.0)
            rewards - beta * d.sum(1)
        """,
    },
    "06-ratio": {
        "upside down": three_ratios(log="(old_logprobs - logprobs).masked_fill(~mask, 0.0)"),
        "no exp": three_ratios(end="log.masked_fill(~mask, 0.0)"),
        "what stands after the stop is multiplied in": three_ratios(log="logprobs - old_logprobs"),
        "the mask forgotten": three_ratios(log="logprobs - old_logprobs", end="log.exp()"),
        "not 0 after the stop": three_ratios(end="log.exp()"),
        "the token's ratio at every level": three_ratios(prefix="log", sequence="log"),
        "GSPO's mean": three_ratios(
            sequence="(log.sum(1) / mask.sum(1))[:, None].expand_as(mask)"
        ),
        "the mean over all positions": three_ratios(
            sequence="log.mean(1, keepdim=True).expand_as(mask)"
        ),
        "answers multiplied with each other": three_ratios(
            sequence="log.sum(0, keepdim=True).expand_as(mask)"
        ),
        "answers multiplied with each other, behind stops, too": three_ratios(
            log="logprobs - old_logprobs", prefix="(log * mask).cumsum(1)",
            sequence="log.sum(0, keepdim=True).expand_as(mask)",
        ),
        "answers multiplied with each other, and not 0": three_ratios(
            sequence="log.sum(0).expand_as(mask)",
            end="log.exp() if level == 'sequence' else log.exp().masked_fill(~mask, 0.0)",
        ),
        "answers multiplied with each other, with zeros": three_ratios(
            log="(logprobs - old_logprobs).exp() * mask", prefix="log.cumprod(0)",
            sequence="log.prod(0, keepdim=True).expand_as(mask)", end="log * mask",
        ),
        "the prefix stops before the token": three_ratios(prefix="log.cumsum(1) - log"),
        "the prefix from the end": three_ratios(prefix="log.flip(1).cumsum(1).flip(1)"),
        "the prefix down the batch": three_ratios(prefix="log.cumsum(0)"),
        "the mean over the prefix": three_ratios(
            prefix="log.cumsum(1) / torch.arange(1, log.size(1) + 1)"
        ),
        "the sequence's ratio for a prefix": three_ratios(
            prefix="log.sum(1, keepdim=True).expand_as(mask)"
        ),
        "the prefix's ratio for a sequence": three_ratios(sequence="log.cumsum(1)"),
        "the sequence as one column": three_ratios(
            sequence="log.sum(1, keepdim=True)", end="log.exp() if level == 'sequence' else "
            "log.exp().masked_fill(~mask, 0.0)"
        ),
        "the sequence as one number an answer": three_ratios(
            sequence="log.sum(1)", end="log.exp() if level == 'sequence' else "
            "log.exp().masked_fill(~mask, 0.0)"
        ),
        "ratios added": three_ratios(
            log="(logprobs - old_logprobs).exp() * mask", end="log.masked_fill(~mask, 0.0)"
        ),
        "zeros multiplied in": three_ratios(
            log="(logprobs - old_logprobs).exp() * mask", prefix="log.cumprod(1)",
            sequence="log.prod(1, keepdim=True).expand_as(mask)", end="log * mask",
        ),
        "probabilities subtracted": "return (logprobs.exp() - old_logprobs.exp()) * mask",
        "logarithms divided": "return (logprobs / old_logprobs).masked_fill(~mask, 0.0)",
        "the trainer alone": three_ratios(log="logprobs.masked_fill(~mask, 0.0)"),
        "no return": "logratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)",
        "a tuple": "return logprobs.exp(), old_logprobs.exp()",
        "a method that is not there": three_ratios(log="logprobs.minus(old_logprobs)"),
        "capped": three_ratios(end="log.exp().clamp(max=4).masked_fill(~mask, 0.0)"),
        "the mask turned": three_ratios(
            log="(logprobs - old_logprobs).masked_fill(mask, 0.0)",
            end="log.exp().masked_fill(mask, 0.0)",
        ),
        "the mask turned at first": three_ratios(
            log="(logprobs - old_logprobs).masked_fill(mask, 0.0)"
        ),
        "without the stop": three_ratios(
            log="(logprobs - old_logprobs) * (mask & (mask.cumsum(1) < mask.sum(1, True)))"
        ),
        "the whole batch": three_ratios(sequence="log.sum().expand_as(mask)"),
        "the lessons' own": """
            return correction_weights(logprobs - old_logprobs, logprobs, mask, 1.0)[level] * mask
        """,
    },
    "06-cap": {
        "the modes exchanged": loop_over_limits(
            cap="ratio.masked_fill(ratio > limit, 0.0)", mask="ratio.clamp(max=limit)"
        ),
        "capped in both modes": loop_over_limits(mask="ratio.clamp(max=limit)"),
        "masked in both modes": loop_over_limits(cap="ratio * (ratio <= limit)"),
        "the limit from below": loop_over_limits(
            cap="ratio.clamp(min=limit)", mask="ratio * (ratio > limit)"
        ),
        "a mask without the ratio": loop_over_limits(mask="(ratio <= limit).double()"),
        "1 in the place of the ratio": loop_over_limits(
            mask="ratio.masked_fill(ratio > limit, 1.0)"
        ),
        "a ratio at the limit masked, too": loop_over_limits(
            mask="ratio.masked_fill(ratio >= limit, 0.0)"
        ),
        "the judge of the visible check": """
            errors = []
            for limit in limits:
                if mode == "cap":
                    weights = ratio.clamp(max=limit)
                else:
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = small_judge(weights)
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "samples less one": loop_over_limits(error="bias**2 + variance / (samples - 1)"),
        "samples squared": loop_over_limits(error="bias**2 + variance / samples**2"),
        "a standard deviation": loop_over_limits(error="bias**2 + variance**0.5 / samples"),
        "a standard error": loop_over_limits(error="bias**2 + (variance / samples) ** 0.5"),
        "the limits sorted": """
            errors = []
            for limit in sorted(limits):
                if mode == "cap":
                    weights = ratio.clamp(max=limit)
                else:
                    weights = ratio.masked_fill(ratio > limit, 0.0)
                bias, variance = judge(weights)
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "no limit": loop_over_limits(cap="ratio", mask="ratio"),
        "the bias not squared": loop_over_limits(error="bias + variance / samples"),
        "the variance not divided": loop_over_limits(error="bias**2 + variance"),
        "both divided": loop_over_limits(error="(bias**2 + variance) / samples"),
        "divided by the root": loop_over_limits(error="bias**2 + variance / samples**0.5"),
        "the variance squared": loop_over_limits(error="bias**2 + (variance / samples) ** 2"),
        "bias and variance exchanged": loop_over_limits(pair="variance, bias"),
        "the bias alone": loop_over_limits(error="bias**2"),
        "the variance alone": loop_over_limits(error="variance / samples"),
        "the root of the error": loop_over_limits(error="(bias**2 + variance / samples) ** 0.5"),
        "the first limit alone": loop_over_limits(end="errors[:1]"),
        "the smallest error alone": loop_over_limits(end="min(errors)"),
        "the best limit": loop_over_limits(end="limits[errors.index(min(errors))]"),
        "a limit on limited ratios": """
            errors = []
            for limit in limits:
                ratio = ratio.clamp(max=limit)
                bias, variance = judge(ratio)
                errors.append(bias**2 + variance / samples)
            return errors
        """,
        "the judge's pair squared": loop_over_limits(pair="both", error="both**2"),
        "no return": loop_over_limits(end="None"),
        "a whole answer masked": loop_over_limits(
            mask="ratio.masked_fill((ratio > limit).any(1, keepdim=True), 0.0)"
        ),
        "masked by the first token": loop_over_limits(mask="ratio * (ratio[:, :1] <= limit)"),
        "masked by the last token": loop_over_limits(mask="ratio * (ratio[:, -1:] <= limit)"),
        "masked by the product": loop_over_limits(
            mask="ratio * (ratio.prod(1, keepdim=True) <= limit)"
        ),
        "a bias of one's own": loop_over_limits(
            error="(weights - ratio).mean().item() ** 2 + variance / samples"
        ),
        "five samples": loop_over_limits(error="bias**2 + variance / 5"),
        "masked below, too": loop_over_limits(
            mask="ratio.masked_fill((ratio > limit) | (ratio < 1 / limit), 0.0)"
        ),
        "bias and variance apart": loop_over_limits(error="(bias**2, variance / samples)"),
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
        "rho and one": BACKWARDS.format("(1 + rho) * (later - sine)", "costates"),
        "rho squared": BACKWARDS.format("rho**2 * (later - sine)", "costates"),
        "theta for rho": BACKWARDS.format("(rho - 1) * (later - sine)", "costates"),
        "minus the cosine": BACKWARDS.format(
            "rho * (later - torch.cos(states[:, t + 1]))", "costates"
        ),
        "a mean over rollouts, repeated": BACKWARDS.format(
            "rho * (later - sine)", "costates.mean(0).expand_as(states)"
        ),
        "a step too few": """
            costates = torch.zeros_like(states)
            for t in reversed(range(states.shape[1] - 2)):
                costates[:, t] = rho * (costates[:, t + 1] - torch.sin(states[:, t + 1]))
            return costates
        """,
        "down the rows": """
            costates = torch.zeros_like(states)
            for row in reversed(range(len(states) - 1)):
                costates[row] = rho * (costates[row + 1] - torch.sin(states[row + 1]))
            return costates
        """,
        "zeros": "return torch.zeros_like(states)",
        "written into the states": """
            costates = states
            costates[:, -1] = 0
            for t in reversed(range(states.shape[1] - 1)):
                costates[:, t] = rho * (costates[:, t + 1] - torch.sin(states[:, t + 1]))
            return costates
        """,
        "not to the start": """
            costates = torch.zeros_like(states)
            for t in range(states.shape[1] - 2, 0, -1):
                costates[:, t] = rho * (costates[:, t + 1] - torch.sin(states[:, t + 1]))
            return costates
        """,
        "half is always left": BACKWARDS.format("0.5 * (later - sine)", "costates"),
        "the rewards to come": BACKWARDS.format(
            "later + torch.cos(states[:, t + 1])", "costates"
        ),
        "single slopes": "return -torch.sin(states)",
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
        "a number for each copy": ROLLOUTS.format("noisy[:, 0].mean().item(), quiet[:, 0]"),
        "without the return": ROLLOUTS.format("None"),
        "the median": ROLLOUTS.format("noisy[:, 0].median().item(), quiet[0, 0].item()"),
        "a noisy rollout as the quiet one": ROLLOUTS.format(
            "noisy[:, 0].mean().item(), noisy[0, 0].item()"
        ),
        "rollouts less one": ROLLOUTS.format(
            "noisy[:, 0].sum().item() / (len(eps) - 1), quiet[0, 0].item()"
        ),
        "a start of 1": """
            start = torch.ones(len(eps))
            noisy = first_costates(track, start, eps)
            quiet = first_costates(track, start[:1], torch.zeros(1, track.horizon))
            return noisy.mean().item(), quiet.item()
        """,
        "two steps": """
            short = CosineTrack(2, track.gain, track.noise)
            start = torch.full((len(eps),), s)
            noisy = first_costates(short, start, eps)
            quiet = first_costates(short, start[:1], torch.zeros(1, 2))
            return noisy.mean().item(), quiet.item()
        """,
        "noise for two steps": """
            start = torch.full((len(eps),), s)
            noisy = first_costates(track, start, eps)
            quiet = first_costates(track, start[:1], torch.zeros(1, 2))
            return noisy.mean().item(), quiet.item()
        """,
        "the toy's costates": """
            start = torch.full((len(eps),), s)
            noisy = first_costates(toy, start, eps)
            quiet = first_costates(toy, start[:1], torch.zeros(1, 2))
            return noisy.mean().item(), quiet.item()
        """,
        "the package's closed form": ROLLOUTS.format(
            "track.value_gradient(start[0]).item(), quiet[0, 0].item()"
        ),
    },
    "09-samples": {
        "the sign": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return relative * cosine**2 / (cosine**2 - 1)
        """,
        "p squared": """
            g = p @ costates
            relative = p**2 @ (costates - g).square().sum(1) / g.square().sum()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "torch's var": """
            relative = costates.var(0).sum() / (p @ costates).square().sum()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "the cosine is left out": """
            g = p @ costates
            return p @ (costates - g).square().sum(1) / g.square().sum()
        """,
        "the absolute error": """
            absolute = p @ (costates - p @ costates).square().sum(1)
            return absolute * cosine**2 / (1 - cosine**2)
        """,
        "divided by the length": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.norm()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "the root": """
            g = p @ costates
            relative = (p @ (costates - g).square().sum(1)).sqrt() / g.norm()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "without p": """
            g = p @ costates
            relative = (costates - g).square().sum(1).mean() / g.square().sum()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "a plain mean for the gradient": """
            g = costates.mean(0)
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "a mean over the numbers of a costate": """
            g = p @ costates
            relative = p @ (costates - g).square().mean(1) / g.square().sum()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "the gradient is not subtracted": """
            g = p @ costates
            relative = p @ costates.square().sum(1) / g.square().sum()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "distances, not squared": """
            g = p @ costates
            relative = p @ (costates - g).norm(dim=1) / g.square().sum()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "the cosine's share upside down": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return relative * (1 - cosine**2) / cosine**2
        """,
        "the cosine is not squared": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return relative * cosine / (1 - cosine)
        """,
        "not divided": """
            g = p @ costates
            return p @ (costates - g).square().sum(1) / g.square().sum() * cosine**2
        """,
        "rounded up": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return math.ceil(relative * cosine**2 / (1 - cosine**2))
        """,
        "a tuple": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return relative, relative * cosine**2 / (1 - cosine**2)
        """,
        "nothing returned": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
        """,
        "a name that is not there": "return relative * cosine**2 / (1 - cosine**2)",
        "the global costates": """
            relative = toy_absolute / toy_signal + 0 * p.sum()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "at least one costate": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return max(1.0, (relative * cosine**2 / (1 - cosine**2)).item())
        """,
        "rounded to four decimals": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return round((relative * cosine**2 / (1 - cosine**2)).item(), 4)
        """,
        "divided by the cosine": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return relative / cosine**2
        """,
        "not multiplied by the cosine": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return relative / (1 - cosine**2)
        """,
        "cosine to the fourth": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return relative * cosine**4 / (1 - cosine**4)
        """,
        "cosine over sine, not squared": """
            g = p @ costates
            relative = p @ (costates - g).square().sum(1) / g.square().sum()
            return relative * cosine / (1 - cosine**2) ** 0.5
        """,
        "both means unweighted": """
            g = costates.mean(0)
            relative = (costates - g).square().sum(1).mean() / g.square().sum()
            return relative * cosine**2 / (1 - cosine**2)
        """,
        "lengths, not squared": """
            g = p @ costates
            relative = p @ (costates - g).norm(dim=1) / g.norm()
            return relative * cosine**2 / (1 - cosine**2)
        """,
    },
    "09-bias": {
        "divided by V": "return -(pi * Q) @ (M - pi @ M) / (pi @ Q)",
        "without the first token": "return -(pi * Q)[1:] @ (M - pi @ M)[1:]",
        "the mean of M under Q": "return -(pi * Q) @ (M - Q @ M)",
        "the sum of M": "return -(pi * Q) @ (M - M.sum(0))",
        "of length 1": """
            bias = -(pi * Q) @ (M - pi @ M)
            return bias / bias.norm()
        """,
        "an unbiased covariance": """
            return -(pi * Q) @ (M - pi @ M) * len(Q) / (len(Q) - 1)
        """,
        "zeros": "return torch.zeros(M.shape[1], dtype=M.dtype)",
        "the sign": "return (pi * Q) @ (M - pi @ M)",
        "nothing centred": "return -(pi * Q) @ M",
        "a product of means": "return -(pi @ Q) * (pi @ M)",
        "½ subtracted from Q, M not centred": "return -((Q - 0.5) * pi) @ M",
        "a covariance over K without pi": "return -(Q - Q.mean()) @ (M - M.mean(0)) / len(Q)",
        "divided by pi": "return -(Q / pi) @ (M - pi @ M)",
        "without the policy": "return -Q @ (M - pi @ M)",
        "the plain mean of M": "return -(pi * Q) @ (M - M.mean(0))",
        "means over tokens instead of under pi": """
            return -(pi * (Q - Q.mean())) @ (M - M.mean(0))
        """,
        "a covariance without pi": """
            return -(Q - Q.mean()) @ (M - M.mean(0)) / (len(Q) - 1)
        """,
        "its length alone": "return ((pi * Q) @ (M - pi @ M)).norm()",
        "a mean over tokens": "return -((pi * Q)[:, None] * (M - pi @ M)).mean(0)",
        "without Q": "return -pi @ (M - pi @ M)",
        "a row a token": "return -(pi * Q)[:, None] * (M - pi @ M)",
        "nothing returned": "bias = -(pi * Q) @ (M - pi @ M)",
        "a wrong shape": "return -(pi * Q) * (M - pi @ M)",
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
        "k right answers taken for a share of 1": """
            return [1.0 if c >= k else 1 - math.comb(n - c, k) / math.comb(n, k) for c in correct]
        """,
        "k wrong answers taken for a share of 1": """
            return [1.0 if n - c <= k else 1 - math.comb(n - c, k) / math.comb(n, k)
                    for c in correct]
        """,
        "rounded": """
            return [round(1 - math.comb(n - c, k) / math.comb(n, k), 2) for c in correct]
        """,
        "by heart": """
            return {4: [0, 0.5, 1, 1], 7: [0.4286, 0.8857, 0.9714], 8: [0, 0.5, 0.786]}[n]
        """,
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
        "the median of the leads": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.median(), leads.std() / len(leads) ** 0.5]
        """,
        "the two numbers exchanged": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.std() / len(leads) ** 0.5, leads.mean()]
        """,
        "argmax along the seeds": """
            seeds = torch.arange(len(gains))
            picks = [gains[seeds, v.argmax(0)[seeds % gains.size(1)]] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
        "whole columns of gains": """
            picks = [gains[:, v.argmax(1)] / gains.amax(1) for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / len(leads) ** 0.5]
        """,
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
        "the share that is missed": """
            best = gains.amax(1)
            missed = (best - gains.gather(1, scores.argmax(1, keepdim=True))[:, 0]) / best
            return [missed.mean(), missed.std() / len(missed) ** 0.5]
        """,
        "divided by the root of all numbers": """
            picks = [gains.gather(1, v.argmax(1, keepdim=True))[:, 0] / gains.amax(1)
                     for v in (scores, rival_scores)]
            leads = picks[0] - picks[1]
            return [leads.mean(), leads.std() / gains.numel() ** 0.5]
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
        "r² in place of r": """
            g = (p * r * r) @ s
            estimates = (r - baseline)[:, None] * s
            return p @ (estimates - g).square().sum(1)
        """,
        "V unless the baseline is 0": """
            g = (p * r) @ s
            b = p @ r if baseline else baseline
            return p @ ((r - b)[:, None] * s - g).square().sum(1)
        """,
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
        "r + b": """
            g = (p * r) @ s
            estimates = (r + baseline)[:, None] * s
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
        "r² in place of r": """
            variance = p @ (r - p @ r).square()
            g = (p * r * r) @ s
            return (variance * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
        """,
        "one mean of the product": """
            joint = p @ ((r - p @ r).square() * s.square().sum(1))
            g = (p * r) @ s
            return (joint + g.square().sum()) / (G - 1)
        """,
        "E|r − V|": """
            error = p @ (r - p @ r).abs()
            g = (p * r) @ s
            return (error * (p @ s.square().sum(1)) + g.square().sum()) / (G - 1)
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
        "‖E s‖²": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s).square().sum() + g.square().sum()) / (G - 1)
        """,
        "‖s‖ not squared": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s.norm(dim=1)) + g.square().sum()) / (G - 1)
        """,
        "means over the weights": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s.square().mean(1)) + g.square().mean()) / (G - 1)
        """,
        "a mean over the weights of s": """
            variance = p @ (r - p @ r).square()
            g = (p * r) @ s
            return (variance * (p @ s.square().mean(1)) + g.square().sum()) / (G - 1)
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
        "the median": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std() / len(d) ** 0.5
            return [d.quantile(0.5), d.quantile(0.5) - half, d.quantile(0.5) + half]
        """,
        "the middle of least and largest": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std() / len(d) ** 0.5
            middle = (d.min() + d.max()) / 2
            return [middle, middle - half, middle + half]
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
        "rounded": """
            d = torch.tensor([round(a - b, 2) for a, b in zip(ours, theirs)])
            half = factor * d.std() / len(d) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
        "always five seeds": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            mean = d.sum() / 5
            half = factor * d.std() / len(d) ** 0.5
            return [mean, mean - half, mean + half]
        """,
        "a number and a pair": """
            d = torch.tensor(ours) - torch.tensor(theirs)
            half = factor * d.std() / len(d) ** 0.5
            return d.mean(), (d.mean() - half, d.mean() + half)
        """,
        "sorted": """
            d = torch.tensor(sorted(ours)) - torch.tensor(sorted(theirs))
            half = factor * d.std() / len(d) ** 0.5
            return [d.mean(), d.mean() - half, d.mean() + half]
        """,
    },
}


# Lesson 08: what follows the same beginning.

PROBE = """
P = prompts.size(1)
T = completions.size(1)
with tap(at) as inputs:
    logits, _ = policy(torch.cat([prompts, completions[:, :-1]], 1))
x = inputs[0]
logprobs = token_logprobs(logits[:, P - 1 :], completions)
weights = advantages[:, None] * mask
terms = weights * logprobs
"""
COSTATES = {
    "the gradient of the loss": "return torch.autograd.grad(-terms.sum(), x)[0]",
    "the first token's term missing": """
shifted = token_logprobs(logits[:, P:], completions[:, 1:])
return torch.autograd.grad((weights[:, 1:] * shifted).sum(), x)[0]
""",
    "the logits one position late": """
shifted = token_logprobs(logits[:, P:], completions[:, :-1])
return torch.autograd.grad((weights[:, :-1] * shifted).sum(), x)[0]
""",
    "the logits one position early": """
shifted = token_logprobs(logits[:, P - 2 : -1], completions)
return torch.autograd.grad((weights * shifted).sum(), x)[0]
""",
    "the stop taken for padding": """
return torch.autograd.grad((terms * (completions != 12)).sum(), x)[0]
""",
    "the mask ignored": """
return torch.autograd.grad((advantages[:, None] * logprobs).sum(), x)[0]
""",
    "a mean over rows": "return torch.autograd.grad(terms.sum(1).mean(), x)[0]",
    "a mean over all places": "return torch.autograd.grad(terms.mean(), x)[0]",
    "a mean over live tokens": "return torch.autograd.grad(terms.sum() / mask.sum(), x)[0]",
    "each row divided by its length": """
return torch.autograd.grad((terms.sum(1) / mask.sum(1)).sum(), x)[0]
""",
    "the mask one place early": """
return torch.autograd.grad((terms[:, :-1] * mask[:, 1:]).sum(), x)[0]
""",
    "rows from the prompt's first token": """
logprobs = token_logprobs(logits[:, :T], completions)
return torch.autograd.grad((weights * logprobs).sum(), x)[0]
""",
    "the mean advantage": """
return torch.autograd.grad((advantages.mean() * logprobs * mask).sum(), x)[0]
""",
    "positive advantages only": """
return torch.autograd.grad((weights.clamp(min=0) * logprobs).sum(), x)[0]
""",
    "advantages divided by their std again": """
weights = (advantages - advantages.mean()) / advantages.std()
return torch.autograd.grad((weights[:, None] * logprobs * mask).sum(), x)[0]
""",
    "without the advantages": "return torch.autograd.grad((logprobs * mask).sum(), x)[0]",
    "probabilities": "return torch.autograd.grad((weights * logprobs.exp()).sum(), x)[0]",
    "the probability of the whole": """
whole = (logprobs * mask).sum(1).exp()
return torch.autograd.grad((advantages * whole).sum(), x)[0]
""",
    "logits": """
chosen = logits[:, P - 1 :].gather(2, completions[:, :, None])[..., 0]
return torch.autograd.grad((weights * chosen).sum(), x)[0]
""",
    "the completion's positions only": "return torch.autograd.grad(terms.sum(), x)[0][:, P - 1 :]",
    "the prompt's positions only": "return torch.autograd.grad(terms.sum(), x)[0][:, :P]",
    "added up over rows": "return torch.autograd.grad(terms.sum(), x)[0].sum(0)",
    "a tuple": "return torch.autograd.grad(terms.sum(), x)",
    "the list of inputs": "return inputs",
    "nothing returned": "torch.autograd.grad(terms.sum(), x)[0]",
    "no sum": "return torch.autograd.grad(terms, x)[0]",
    "the gradient that backward did not leave": "return x.grad",
    "advantages along the wrong axis": """
return torch.autograd.grad((advantages * logprobs * mask).sum(), x)[0]
""",
    "prompts of three tokens taken for granted": """
logprobs = token_logprobs(logits[:, 2:], completions)
return torch.autograd.grad((weights * logprobs).sum(), x)[0]
""",
    "only each position's own term": """
own = torch.zeros_like(x)
for t in range(T):
    gradient = torch.autograd.grad(terms[:, t].sum(), x, retain_graph=True)[0]
    own[:, P - 1 + t] = gradient[:, P - 1 + t]
return own
""",
    "the prompt's tokens scored, too": """
of_prompt = token_logprobs(logits[:, : P - 1], prompts[:, 1:]).sum(1)
return torch.autograd.grad(terms.sum() + (advantages * of_prompt).sum(), x)[0]
""",
    "each place's own token": """
standing = torch.cat([prompts, completions], 1)[:, P - 1 : -1]
logprobs = token_logprobs(logits[:, P - 1 :], standing)
return torch.autograd.grad((weights * logprobs).sum(), x)[0]
""",
    "the mask turned round": """
return torch.autograd.grad((advantages[:, None] * logprobs * ~mask).sum(), x)[0]
""",
    "the package's own": """
from minicf.rollout import Rollout
rollout = Rollout(prompts, completions, mask, 0.0 * mask, advantages, 1)
return empirical_costates(policy, rollout, advantages, at)
""",
    "both of what the policy returns": """
with tap(at) as inputs:
    both = policy(torch.cat([prompts, completions[:, :-1]], 1))
return token_logprobs(both[:, P - 1 :], completions)
""",
}
WRONG["08-costates"] = {name: PROBE + lines for name, lines in COSTATES.items()}
WRONG["08-costates"]["always entering the first block"] = (
    PROBE.replace("tap(at)", "tap(policy.blocks[0])")
    + "return torch.autograd.grad(terms.sum(), x)[0]"
)
WRONG["08-costates"]["the whole completion fed"] = """
with tap(at) as inputs:
    logits, _ = policy(torch.cat([prompts, completions], 1))
logprobs = token_logprobs(logits[:, prompts.size(1) - 1 : -1], completions)
surrogate = (advantages[:, None] * logprobs * mask).sum()
return torch.autograd.grad(surrogate, inputs[0])[0]
"""
WRONG["08-costates"]["the notebook's policy"] = (
    PROBE.replace("= policy(", "= middle(") + "return torch.autograd.grad(terms.sum(), x)[0]"
)

VECTORS = """
a = left.flatten(1)
b = truth.flatten(1)
products = (a * b).sum(1)
lengths = a.norm(dim=1) * b.norm(dim=1)
"""
COSINES = {
    "dead groups count as 0": "return products / lengths.where(lengths > 0, 1.0)",
    "dead groups count as 1": "return (products / lengths).nan_to_num(1.0)",
    "an epsilon": "return products / (lengths + 1e-8)",
    "PyTorch's own, with its epsilon": "return torch.cosine_similarity(a, b)",
    "lengths of at least 1e-8": "return products / lengths.clamp(min=1e-8)",
    "nan for short vectors": "return (products / lengths).where(lengths > 1e-8, torch.nan)",
    "nan for a short left": "return (products / lengths).where(a.norm(dim=1) > 1e-6, torch.nan)",
    "nan for the dead left only": """
return (products / lengths.clamp(min=1e-30)).where(a.norm(dim=1) > 0, torch.nan)
""",
    "nan where numbers add up to 0": """
zero = (a.sum(1) == 0) | (b.sum(1) == 0)
return (products / lengths).masked_fill(zero, torch.nan)
""",
    "nan where the left's numbers add up to 0": """
return (products / lengths).masked_fill(a.sum(1) == 0, torch.nan)
""",
    "nan for vectors at right angles": """
return (products / lengths).masked_fill(products == 0, torch.nan)
""",
    "nan for one token of zeros": """
zero = ((left == 0).all(2) | (truth == 0).all(2)).any(1)
return (products / lengths).masked_fill(zero, torch.nan)
""",
    "F.normalize, with its epsilon": """
cosines = (torch.nn.functional.normalize(a) * torch.nn.functional.normalize(b)).sum(1)
return cosines.masked_fill(lengths == 0, torch.nan)
""",
    "a length of at least 1e-12": """
cosines = products / a.norm(dim=1).clamp(min=1e-12) / b.norm(dim=1).clamp(min=1e-12)
return cosines.masked_fill(lengths == 0, torch.nan)
""",
    "nan for lengths below 1e-12": """
zero = (a.norm(dim=1) < 1e-12) | (b.norm(dim=1) < 1e-12)
return (products / lengths).masked_fill(zero, torch.nan)
""",
    "nan for lengths below 1e-16": """
return (products / lengths).masked_fill(a.norm(dim=1) < 1e-16, torch.nan)
""",
    "the arguments divided in place": """
left /= a.norm(dim=1)[:, None, None]
truth /= b.norm(dim=1)[:, None, None]
return (left * truth).sum((1, 2))
""",
    "the last token only": "return torch.cosine_similarity(left[:, -1], truth[:, -1])",
    "a mean over the tokens first": "return torch.cosine_similarity(left.mean(1), truth.mean(1))",
    "a sum of the tokens' lengths": """
return products / (left.norm(dim=2).sum(1) * truth.norm(dim=2).sum(1))
""",
    "the squared length of one": "return products / a.square().sum(1)",
    "a mean over the tokens' cosines": "return torch.cosine_similarity(left, truth, -1).mean(1)",
    "one for each token": "return torch.cosine_similarity(left, truth, -1)",
    "no lengths": "return products",
    "one length only": "return products / a.norm(dim=1)",
    "squares without roots": "return products / a.square().sum(1) / b.square().sum(1)",
    "one cosine for all": "return torch.cosine_similarity(a.flatten(), b.flatten(), 0)",
    "one cosine for all, in all places": """
return torch.cosine_similarity(a.flatten(), b.flatten(), 0).expand(len(a))
""",
    "the lengths of all prompts": "return products / (left.norm() * truth.norm())",
    "the wrong sign": "return -products / lengths",
    "the angle": "return (products / lengths).clamp(-1, 1).acos()",
    "the cosine's size": "return (products / lengths).abs()",
    "alignment's pair": "return alignment(a, b)",
    "a pair": "return products / lengths, lengths",
    "nothing returned": "cosines = products / lengths",
    "shapes that do not fit": "return products / left.norm(dim=1)",
}
WRONG["08-cosine"] = {name: VECTORS + lines for name, lines in COSINES.items()}
