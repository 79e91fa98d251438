"""Plausible wrong answers to the lessons' exercises: each must fail its graded test.

WRONG[grade_id][name] is what stands in the place of the solution; it may use what the lesson has
imported so far. `test_lessons.py` demands at least three per exercise, and that each fails an
assertion: an answer that crashes would prove nothing about the test.
"""

WRONG = {
    "05-adjoint": {
        "zeros": "return torch.zeros_like(states)",
        "the sign of the reward": """
            costates = torch.zeros_like(states)
            for t in reversed(range(states.shape[1] - 1)):
                costates[:, t] = rho * (costates[:, t + 1] + torch.sin(states[:, t + 1]))
            return costates
        """,
        "a cost instead of a reward": """
            costates = torch.zeros_like(states)
            for t in reversed(range(states.shape[1] - 1)):
                costates[:, t] = rho * (costates[:, t + 1] + torch.sin(states[:, t + 1]))
            return -costates.abs()
        """,
        "without rho": """
            costates = torch.zeros_like(states)
            for t in reversed(range(states.shape[1] - 1)):
                costates[:, t] = costates[:, t + 1] - torch.sin(states[:, t + 1])
            return costates
        """,
        "rho on the reward only": """
            costates = torch.zeros_like(states)
            for t in reversed(range(states.shape[1] - 1)):
                costates[:, t] = costates[:, t + 1] - rho * torch.sin(states[:, t + 1])
            return costates
        """,
        "reward one step early": """
            costates = torch.zeros_like(states)
            for t in reversed(range(states.shape[1] - 1)):
                costates[:, t] = rho * (costates[:, t + 1] - torch.sin(states[:, t]))
            return costates
        """,
        "starts from the last reward": """
            costates = -torch.sin(states)
            for t in reversed(range(states.shape[1] - 1)):
                costates[:, t] = rho * costates[:, t + 1] - torch.sin(states[:, t])
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
        "the package's own": """
            return CosineTrack(states.shape[1] - 1, rho - 1, 0.0).costates(states)
        """,
    },
    "05-noise-free": {
        "zeros": "return 0.0, 0.0",
        "the other way round": """
            start = torch.full((len(eps),), s, dtype=eps.dtype)
            noisy = track.costates(track.rollout(start, eps))[:, 0]
            quiet = track.costates(track.rollout(start, 0 * eps))[:, 0]
            return quiet.mean().item(), noisy.mean().item()
        """,
        "the noise-free one twice": """
            start = torch.full((len(eps),), s, dtype=eps.dtype)
            quiet = track.costates(track.rollout(start, 0 * eps))[:, 0].mean().item()
            return quiet, quiet
        """,
        "the mean twice": """
            start = torch.full((len(eps),), s, dtype=eps.dtype)
            noisy = track.costates(track.rollout(start, eps))[:, 0].mean().item()
            return noisy, noisy
        """,
        "states averaged first": """
            start = torch.full((len(eps),), s, dtype=eps.dtype)
            states = track.rollout(start, eps).mean(0, keepdim=True)
            quiet = track.costates(track.rollout(start[:1], 0 * eps[:1]))
            return track.costates(states)[0, 0].item(), quiet[0, 0].item()
        """,
        "averaged over time too": """
            start = torch.full((len(eps),), s, dtype=eps.dtype)
            noisy, quiet = (track.costates(track.rollout(start, e)) for e in (eps, 0 * eps))
            return noisy.mean().item(), quiet.mean().item()
        """,
        "one step late": """
            start = torch.full((len(eps),), s, dtype=eps.dtype)
            noisy, quiet = (track.costates(track.rollout(start, e))[:, 1] for e in (eps, 0 * eps))
            return noisy.mean().item(), quiet.mean().item()
        """,
        "the sign": """
            start = torch.full((len(eps),), s, dtype=eps.dtype)
            noisy, quiet = (track.costates(track.rollout(start, e))[:, 0] for e in (eps, 0 * eps))
            return -noisy.mean().item(), -quiet.mean().item()
        """,
        "the package's closed form": """
            start = torch.full((len(eps),), s, dtype=eps.dtype)
            quiet = track.costates(track.rollout(start, 0 * eps))[:, 0].mean().item()
            return track.value_gradient(start[0]).item(), quiet
        """,
    },
    "06-costates": {
        "zeros": "return policy.head.weight.new_zeros(len(prompts), 6, policy.config.d_model)",
        "the gradient of the loss": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={layer: delta})[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * mask
            return torch.autograd.grad(-terms.sum(), delta)[0]
        """,
        "the logits one position late": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={layer: delta})[0][:, 3:]
            logprobs = token_logprobs(logits, completions[:, :-1])
            terms = advantages[:, None] * (logprobs * mask[:, :-1])
            return torch.autograd.grad(terms.sum(), delta)[0]
        """,
        "filed one position early": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={layer: delta})[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * mask
            return torch.autograd.grad(terms.sum(), delta)[0].roll(-1, 1)
        """,
        "the stop taken for padding": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={layer: delta})[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * (completions != 12)
            return torch.autograd.grad(terms.sum(), delta)[0]
        """,
        "no mask": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={layer: delta})[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions)
            return torch.autograd.grad(terms.sum(), delta)[0]
        """,
        "divided by the own length": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={layer: delta})[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * mask
            return torch.autograd.grad((terms.sum(1) / mask.sum(1)).sum(), delta)[0]
        """,
        "the mean over rows": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={layer: delta})[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * mask
            return torch.autograd.grad(terms.sum(1).mean(), delta)[0]
        """,
        "without the advantages": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={layer: delta})[0][:, 2:]
            return torch.autograd.grad((token_logprobs(logits, completions) * mask).sum(), delta)[0]
        """,
        "probabilities instead of their logarithms": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={layer: delta})[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions).exp() * mask
            return torch.autograd.grad(terms.sum(), delta)[0]
        """,
        "always entering the first block": """
            tokens = torch.cat([prompts, completions[:, :-1]], 1)
            delta = policy.head.weight.new_zeros(*tokens.shape, 16).requires_grad_()
            logits = policy(tokens, nudge={0: delta})[0][:, 2:]
            terms = advantages[:, None] * token_logprobs(logits, completions) * mask
            return torch.autograd.grad(terms.sum(), delta)[0]
        """,
        "the package's own": """
            from minicf.rollout import Rollout
            rollout = Rollout(prompts, completions, mask, 0.0 * mask, advantages, len(prompts))
            return empirical_costates(policy, rollout, advantages, layer)
        """,
    },
    "06-attention": {
        "zeros": "return torch.zeros_like(empirical_costates(policy, rollout, advantages, layer))",
        "the whole": "return empirical_costates(policy, rollout, advantages, layer)",
        "the sign": """
            attention = -empirical_costates(policy, rollout, advantages, layer)
            for t, alone in enumerate(torch.eye(4)):
                term = empirical_costates(policy, rollout, advantages[:, None] * alone, layer)
                attention[:, 2 + t] += term[:, 2 + t]
            return attention
        """,
        "the own logits' part": """
            own = torch.zeros_like(empirical_costates(policy, rollout, advantages, layer))
            for t, alone in enumerate(torch.eye(4)):
                term = empirical_costates(policy, rollout, advantages[:, None] * alone, layer)
                own[:, 2 + t] = term[:, 2 + t]
            return own
        """,
        "one position early": """
            attention = empirical_costates(policy, rollout, advantages, layer)
            for t, alone in enumerate(torch.eye(4)):
                term = empirical_costates(policy, rollout, advantages[:, None] * alone, layer)
                attention[:, 1 + t] -= term[:, 1 + t]
            return attention
        """,
        "every term at every position": """
            attention = empirical_costates(policy, rollout, advantages, layer)
            for alone in torch.eye(4):
                attention -= empirical_costates(policy, rollout, advantages[:, None] * alone, layer)
            return attention
        """,
        "own terms without the advantage": """
            attention = empirical_costates(policy, rollout, advantages, layer)
            for t, alone in enumerate(torch.eye(4)):
                term = empirical_costates(policy, rollout, alone.expand(len(advantages), 4), layer)
                attention[:, 2 + t] -= term[:, 2 + t]
            return attention
        """,
        "the next token's term only": """
            attention = torch.zeros_like(empirical_costates(policy, rollout, advantages, layer))
            for t, alone in enumerate(torch.eye(4)):
                term = empirical_costates(policy, rollout, advantages[:, None] * alone, layer)
                attention[:, 1 + t] = term[:, 1 + t]
            return attention
        """,
        "the package's own": """
            whole = empirical_costates(policy, rollout, advantages, layer)
            return whole - own_logit_costates(policy, rollout, advantages, layer)
        """,
    },
    "07-slope": {
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
    "07-bias": {
        "zeros": "return torch.zeros(J.shape[1]).double(), 0.0",
        "the sign": """
            bound = 0.5 * (Q.max() - Q.min()) * torch.cdist(J, J).max() * (1 - pi @ pi)
            return (pi * Q) @ (J - pi @ J), bound
        """,
        "nothing centred": """
            bound = 0.5 * (Q.max() - Q.min()) * torch.cdist(J, J).max() * (1 - pi @ pi)
            return -(pi * Q) @ J, bound
        """,
        "means over tokens instead of under pi": """
            bound = 0.5 * (Q.max() - Q.min()) * torch.cdist(J, J).max() * (1 - pi @ pi)
            return -(pi * (Q - Q.mean())) @ (J - J.mean(0)), bound
        """,
        "a covariance without pi": """
            bound = 0.5 * (Q.max() - Q.min()) * torch.cdist(J, J).max() * (1 - pi @ pi)
            return -(Q - Q.mean()) @ (J - J.mean(0)) / (len(Q) - 1), bound
        """,
        "the entropy's bound": """
            bound = 0.5 * (Q.max() - Q.min()) * torch.cdist(J, J).max() * -(pi @ pi.log())
            return -(pi * (Q - pi @ Q)) @ (J - pi @ J), bound
        """,
        "without the half": """
            bound = (Q.max() - Q.min()) * torch.cdist(J, J).max() * (1 - pi @ pi)
            return -(pi * (Q - pi @ Q)) @ (J - pi @ J), bound
        """,
        "the length of the bias for its bound": """
            bias = -(pi * (Q - pi @ Q)) @ (J - pi @ J)
            return bias, bias.norm()
        """,
        "the package's own": """
            bias, bounds = own_logit_bias(Q, pi, J)
            return bias, bounds["gap"]
        """,
    },
    "08-headroom": {
        "zeros": "return 0.0",
        "plugging c/n in": """
            p = correct.double() / n
            return (1 - (1 - p) ** k - p).mean().item()
        """,
        "the sign": """
            every = [math.comb(n - c, k) / math.comb(n, k) + c / n - 1 for c in correct.tolist()]
            return sum(every) / len(every)
        """,
        "pass@k alone": """
            every = [1 - math.comb(n - c, k) / math.comb(n, k) for c in correct.tolist()]
            return sum(every) / len(every)
        """,
        "the sum over prompts": """
            every = [1 - math.comb(n - c, k) / math.comb(n, k) - c / n for c in correct.tolist()]
            return sum(every)
        """,
        "all k right": """
            every = [math.comb(c, k) / math.comb(n, k) - c / n for c in correct.tolist()]
            return sum(every) / len(every)
        """,
        "one draw fewer": """
            k -= 1
            every = [1 - math.comb(n - c, k) / math.comb(n, k) - c / n for c in correct.tolist()]
            return sum(every) / len(every)
        """,
        "counts pooled over prompts": """
            c, total = int(correct.sum()), n * len(correct)
            return 1 - math.comb(total - c, k) / math.comb(total, k) - c / total
        """,
        "the package's own": "return (pass_at_k(correct, n, k) - correct / n).mean().item()",
    },
    "08-rank": {
        "zeros": "return 0.0",
        "ties in order of appearance": """
            ranks = torch.stack([v.argsort(stable=True).argsort() for v in (x, y)]).double()
            return torch.corrcoef(ranks)[0, 1].item()
        """,
        "argsort once": """
            ranks = torch.stack([v.argsort(stable=True) for v in (x, y)]).double()
            return torch.corrcoef(ranks)[0, 1].item()
        """,
        "ties get the lowest rank": """
            ranks = [(v[:, None] > v).sum(1).double() for v in (x, y)]
            a, b = (rank - rank.mean() for rank in ranks)
            scale = a.norm() * b.norm()
            return (a @ b / scale).item() if scale > 0 else 0.0
        """,
        "the textbook formula without ties": """
            ranks = [(v[:, None] > v).sum(1) + ((v[:, None] == v).sum(1) + 1) / 2 for v in (x, y)]
            n, d = len(x), ranks[0] - ranks[1]
            return 1 - 6 * d.square().sum().item() / (n * (n * n - 1))
        """,
        "Pearson of the values": """
            a, b = x - x.mean(), y - y.mean()
            scale = a.norm() * b.norm()
            return (a @ b / scale).item() if scale > 0 else 0.0
        """,
        "Kendall's": """
            signs = ((x[:, None] - x).sign() * (y[:, None] - y).sign()).sum()
            return signs.item() / (len(x) * (len(x) - 1))
        """,
        "the sign": """
            ranks = [(v[:, None] < v).sum(1) + ((v[:, None] == v).sum(1) + 1) / 2 for v in (x, -y)]
            a, b = (rank - rank.mean() for rank in ranks)
            scale = a.norm() * b.norm()
            return (a @ b / scale).item() if scale > 0 else 0.0
        """,
        "nan where constant": """
            ranks = [(v[:, None] > v).sum(1) + ((v[:, None] == v).sum(1) + 1) / 2 for v in (x, y)]
            a, b = (rank - rank.mean() for rank in ranks)
            return (a @ b / (a.norm() * b.norm())).item()
        """,
        "the package's own": "return rank_correlation(x, y)",
    },
    "09-build": {
        "zeros": "return 0 * logprobs.sum()",
        "the sign": """
            batch = how.baseline == "batch"
            size, baseline = (len(rewards), "mean") if batch else (group_size, how.baseline)
            A = group_advantages(rewards, size, baseline, how.scale)
            return -clipped_surrogate(logprobs, old_logprobs, A, mask, how.clip, how.aggregate)[0]
        """,
        "batch is the group": """
            baseline = "mean" if how.baseline == "batch" else how.baseline
            A = group_advantages(rewards, group_size, baseline, how.scale)
            return clipped_surrogate(logprobs, old_logprobs, A, mask, how.clip, how.aggregate)[0]
        """,
        "the batch's mean, the group's std": """
            baseline = "mean" if how.baseline == "batch" else how.baseline
            A = group_advantages(rewards, group_size, baseline, how.scale)
            if how.baseline == "batch":
                A = (rewards - rewards.mean()) / rewards.view(-1, group_size).std(1).mean()
            return clipped_surrogate(logprobs, old_logprobs, A, mask, how.clip, how.aggregate)[0]
        """,
        "std with ddof 0": """
            size = len(rewards) if how.baseline == "batch" else group_size
            baseline = "mean" if how.baseline == "batch" else how.baseline
            A = group_advantages(rewards, size, baseline, "none")
            if how.scale == "std":
                spread = rewards.view(-1, size).std(1, correction=0).clamp(min=1e-9)
                A = A / spread.repeat_interleave(size)
            return clipped_surrogate(logprobs, old_logprobs, A, mask, how.clip, how.aggregate)[0]
        """,
        "the default clip": """
            batch = how.baseline == "batch"
            size, baseline = (len(rewards), "mean") if batch else (group_size, how.baseline)
            A = group_advantages(rewards, size, baseline, how.scale)
            return clipped_surrogate(logprobs, old_logprobs, A, mask, aggregate=how.aggregate)[0]
        """,
        "the default aggregate": """
            batch = how.baseline == "batch"
            size, baseline = (len(rewards), "mean") if batch else (group_size, how.baseline)
            A = group_advantages(rewards, size, baseline, how.scale)
            return clipped_surrogate(logprobs, old_logprobs, A, mask, how.clip)[0]
        """,
        "the default scale": """
            batch = how.baseline == "batch"
            size, baseline = (len(rewards), "mean") if batch else (group_size, how.baseline)
            A = group_advantages(rewards, size, baseline)
            return clipped_surrogate(logprobs, old_logprobs, A, mask, how.clip, how.aggregate)[0]
        """,
        "own mean for leave-one-out": """
            batch = how.baseline == "batch"
            size = len(rewards) if batch else group_size
            baseline = "none" if how.baseline == "none" else "mean"
            A = group_advantages(rewards, size, baseline, how.scale)
            return clipped_surrogate(logprobs, old_logprobs, A, mask, how.clip, how.aggregate)[0]
        """,
        "tokens after the stop": """
            batch = how.baseline == "batch"
            size, baseline = (len(rewards), "mean") if batch else (group_size, how.baseline)
            A, every = group_advantages(rewards, size, baseline, how.scale), torch.ones_like(mask)
            return clipped_surrogate(logprobs, old_logprobs, A, every, how.clip, how.aggregate)[0]
        """,
        "the package's own": """
            rollout = Rollout(None, None, mask, old_logprobs, rewards, group_size)
            A = advantages(how, rollout)[0]
            return clipped_surrogate(logprobs, old_logprobs, A, mask, how.clip, how.aggregate)[0]
        """,
    },
    "09-collapse": {
        "never": "return None",
        "at once": 'return history[0]["step"]',
        "narrowing is enough": """
            entries = [entry for entry in history if "entropy" in entry]
            low = [e for e in entries if e["entropy"] < share * entries[0]["entropy"]]
            return low[0]["step"] if low else None
        """,
        "failing is enough": """
            entries = [entry for entry in history if "entropy" in entry]
            low = [e for e in entries if e["success"] < solved]
            return low[0]["step"] if low else None
        """,
        "the last such entry": """
            entries = [entry for entry in history if "entropy" in entry]
            low = [e for e in entries if e["entropy"] < share * entries[0]["entropy"]]
            low = [e for e in low if e["success"] < solved]
            return low[-1]["step"] if low else None
        """,
        "the end alone": """
            first = next(e["entropy"] for e in history if "entropy" in e)
            last = history[-1]
            gone = last["entropy"] < share * first and last["success"] < solved
            return last["step"] if gone else None
        """,
        "half of the largest": """
            entries = [entry for entry in history if "entropy" in entry]
            most = max(e["entropy"] for e in entries)
            for entry in entries:
                if entry["entropy"] < share * most and entry["success"] < solved:
                    return entry["step"]
        """,
        "an entry, not a step": """
            entries = [entry for entry in history if "entropy" in entry]
            for i, entry in enumerate(entries):
                if entry["entropy"] < share * entries[0]["entropy"] and entry["success"] < solved:
                    return i
        """,
        "once solved, never collapsed": """
            entries = [entry for entry in history if "entropy" in entry]
            for entry in entries:
                if entry["success"] >= solved:
                    return None
                if entry["entropy"] < share * entries[0]["entropy"]:
                    return entry["step"]
        """,
        "fixed thresholds": """
            entries = [entry for entry in history if "entropy" in entry]
            for entry in entries:
                if entry["entropy"] < 0.5 * entries[0]["entropy"] and entry["success"] < 0.9:
                    return entry["step"]
        """,
    },
}
