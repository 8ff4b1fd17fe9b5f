import { breaker } from './breaker.ts';
import { drain } from './drain.ts';
import { fits } from './fits.ts';
import type { Guard } from './guard.ts';
import { health } from './health.ts';
import { link } from './link.ts';
import { model } from './model.ts';
import { rest } from './rest.ts';
import { stale } from './stale.ts';

export const guards: readonly Guard[] = [health, drain, model, link, breaker, rest, stale, fits];
