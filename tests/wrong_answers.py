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
            terms = advantages[:, None] * (token_logprobs(logits, completions[:, :-1]) * mask[:, :-1])
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
}
