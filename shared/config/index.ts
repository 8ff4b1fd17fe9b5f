export { configKeys, envName, type KeyInfo } from './keys.ts';
export { defaultConfig, loadConfig, type ConfigOverrides, type LoadOptions } from './load.ts';
export { retiredKeys } from './retired.ts';
export { docsTable, printConfig, updateDocs } from './print.ts';
export { configSchema, type AgentConfig, type BrainConfig, type Config, type InstanceConfig } from './schema.ts';
