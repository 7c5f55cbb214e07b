// Numbers as people read them.

export const count = (value) => value.toLocaleString("en");

export function seconds(ms) {
  return ms < 995 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`;
}

export const perSecond = (rate) => `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} tokens/s`;

export function percent(logprob) {
  const share = Math.exp(logprob) * 100;
  return share < 0.1 ? "< 0.1 %" : `${share.toFixed(1)} %`;
}

/** One line about an answer: what came, how fast, how soon. */
export function summary({ usage, rate, firstTokenMs }) {
  const parts = [];
  if (usage) parts.push(`${count(usage.completion_tokens)} tokens`);
  if (rate) parts.push(perSecond(rate));
  if (firstTokenMs !== null) parts.push(`first after ${seconds(firstTokenMs)}`);
  return parts.join("  ·  ");
}
