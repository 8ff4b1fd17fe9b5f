import { Command } from 'commander';
import { packageVersion } from '../shared/package-root.ts';
import { commands } from './commands.ts';

const program = new Command('lodestar')
  .description('Online-learning request router for fleets of vLLM servers')
  .version(packageVersion);
for (const add of commands) add(program);
await program.parseAsync();
