import type { FleetNode } from './fleet.ts';

export interface HintsOptions {
  nodes: readonly FleetNode[];
  brainUrl: string;
  token: string;
  model: string;
}

/** What a user can paste while the fleet stays up: a curl, the OpenAI SDK in two languages, the status pages. */
export function hintLines({ nodes, brainUrl, token, model }: HintsOptions): string[] {
  const entry = nodes[0]?.agentUrl ?? '';
  const messages = '[{"role": "user", "content": "Hello"}]';
  return [
    'The fleet stays up, routed by what it learned; every agent is an entry to all of it. Ctrl-C stops it.',
    '',
    `curl ${entry}/v1/chat/completions -H 'content-type: application/json' \\`,
    `  -d '{"model": "${model}", "messages": ${messages}, "max_tokens": 32}'`,
    '',
    '# Python',
    'from openai import OpenAI',
    `client = OpenAI(base_url="${entry}/v1", api_key="none")`,
    `print(client.chat.completions.create(model="${model}", messages=${messages}).choices[0].message.content)`,
    '',
    '// JavaScript',
    "import OpenAI from 'openai';",
    `const client = new OpenAI({ baseURL: '${entry}/v1', apiKey: 'none' });`,
    `console.log((await client.chat.completions.create({ model: '${model}', messages: ${messages} })).choices[0].message.content);`,
    '',
    ...nodes.map(
      ({ instance, gpu, agentUrl, engineUrl }) =>
        `agent ${agentUrl}/lodestar/status  beside ${instance} (emulated ${gpu}) ${engineUrl}`,
    ),
    `brain curl -H 'authorization: Bearer ${token}' ${brainUrl}/lodestar/status`,
  ];
}
