#!/usr/bin/env node
// A stand-in for nvidia-smi, for machines that have no NVIDIA GPU: it reports the GPU of an emulated engine, from the
// state file that `lodestar engine --gpu-state-file` writes. LODESTAR_STANDIN_STATE names that file, or several,
// separated by colons, for several GPUs. It knows `-q -x` and `--query-gpu=… --format=csv[,noheader][,nounits] [-l
// SECONDS | -lms MILLISECONDS]`, nothing else.
import { readFileSync } from 'node:fs';

const STALE_MS = 10_000;
const UNITS = {
  'utilization.gpu': '%',
  'utilization.memory': '%',
  'memory.used': 'MiB',
  'memory.total': 'MiB',
  'clocks.sm': 'MHz',
  'clocks.max.sm': 'MHz',
  'power.draw': 'W',
  'power.limit': 'W',
};
const FIELDS = ['index', 'uuid', 'name', 'pci.bus_id', 'temperature.gpu', ...Object.keys(UNITS)];

function fail(message, status) {
  process.stdout.write(`${message}\n`);
  process.exit(status);
}

/**
 * GPUs of all state files, numbered in order; none if a file is absent, unreadable or old, as with a driver that is
 * gone.
 */
function readGpus() {
  const paths = (process.env.LODESTAR_STANDIN_STATE ?? '').split(':').filter(Boolean);
  try {
    const gpus = paths.flatMap((path) => {
      const state = JSON.parse(readFileSync(path, 'utf8'));
      return Date.now() - state.writtenWallMs < STALE_MS ? state.gpus : [];
    });
    return gpus.map((gpu, index) => ({ ...gpu, index }));
  } catch {
    return [];
  }
}

function readGpusOrFail() {
  const gpus = readGpus();
  if (gpus.length === 0)
    fail('nvidia-smi stand-in: no emulated engine writes the file named by LODESTAR_STANDIN_STATE', 9);
  return gpus;
}

const escapeXml = (text) => String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

function gpuXml(gpu) {
  const free = gpu['memory.total'] - gpu['memory.used'];
  return `	<gpu id="${gpu['pci.bus_id']}">
		<product_name>${escapeXml(gpu.name)}</product_name>
		<product_brand>NVIDIA</product_brand>
		<product_architecture>Emulated</product_architecture>
		<persistence_mode>Enabled</persistence_mode>
		<mig_mode>
			<current_mig>N/A</current_mig>
			<pending_mig>N/A</pending_mig>
		</mig_mode>
		<uuid>${gpu.uuid}</uuid>
		<minor_number>${gpu.index}</minor_number>
		<pci>
			<pci_bus_id>${gpu['pci.bus_id']}</pci_bus_id>
		</pci>
		<performance_state>P0</performance_state>
		<fb_memory_usage>
			<total>${gpu['memory.total']} MiB</total>
			<reserved>0 MiB</reserved>
			<used>${gpu['memory.used']} MiB</used>
			<free>${free} MiB</free>
		</fb_memory_usage>
		<compute_mode>Default</compute_mode>
		<utilization>
			<gpu_util>${gpu['utilization.gpu']} %</gpu_util>
			<memory_util>${gpu['utilization.memory']} %</memory_util>
		</utilization>
		<temperature>
			<gpu_temp>${gpu['temperature.gpu']} C</gpu_temp>
		</temperature>
		<gpu_power_readings>
			<power_state>P0</power_state>
			<power_draw>${gpu['power.draw'].toFixed(2)} W</power_draw>
			<current_power_limit>${gpu['power.limit'].toFixed(2)} W</current_power_limit>
		</gpu_power_readings>
		<clocks>
			<sm_clock>${gpu['clocks.sm']} MHz</sm_clock>
		</clocks>
		<max_clocks>
			<sm_clock>${gpu['clocks.max.sm']} MHz</sm_clock>
		</max_clocks>
		<processes>
			<process_info>
				<pid>${gpu.pid}</pid>
				<type>C</type>
				<process_name>lodestar engine (emulated)</process_name>
				<used_memory>${gpu['memory.used']} MiB</used_memory>
			</process_info>
		</processes>
	</gpu>`;
}

function printXml() {
  const gpus = readGpusOrFail();
  process.stdout.write(`<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
	<timestamp>${new Date().toString().slice(0, 24)}</timestamp>
	<driver_version>000.00 (lodestar stand-in)</driver_version>
	<cuda_version>N/A</cuda_version>
	<attached_gpus>${gpus.length}</attached_gpus>
${gpus.map(gpuXml).join('\n')}
</nvidia_smi_log>
`);
}

function formatField(gpu, field, withUnit) {
  const value = field.startsWith('power.') ? gpu[field].toFixed(2) : String(gpu[field]);
  return withUnit && UNITS[field] ? `${value} ${UNITS[field]}` : value;
}

function printQuery(fields, format) {
  const withUnit = !format.includes('nounits');
  const rows = readGpusOrFail().map((gpu) => fields.map((field) => formatField(gpu, field, withUnit)).join(', '));
  process.stdout.write(`${rows.join('\n')}\n`);
}

/** Value of `-l 5`, `-l=5` or `-l5`, undefined if the option is not there. */
function optionValue(args, name) {
  for (const [at, arg] of args.entries()) {
    if (arg === name) return Number(args[at + 1]);
    const rest = arg.startsWith(name) ? arg.slice(name.length).replace(/^=/, '') : '';
    if (/^\d+$/.test(rest)) return Number(rest);
  }
  return undefined;
}

function main(args) {
  if (args.includes('-q') && args.includes('-x')) return printXml();
  const query = args.find((arg) => arg.startsWith('--query-gpu='));
  if (!query) fail('nvidia-smi stand-in: only -q -x and --query-gpu= are known', 2);
  const fields = query
    .slice('--query-gpu='.length)
    .split(',')
    .map((field) => field.trim());
  for (const field of fields) if (!FIELDS.includes(field)) fail(`Field "${field}" is not a valid field to query.`, 2);
  const format = (args.find((arg) => arg.startsWith('--format=')) ?? '').slice('--format='.length).split(',');
  const lms = optionValue(args, '-lms');
  const periodMs = lms ?? (optionValue(args, '-l') ?? 0) * 1000;
  if (!format.includes('noheader')) {
    const names = fields.map((field) => (UNITS[field] ? `${field} [${UNITS[field]}]` : field));
    process.stdout.write(`${names.join(', ')}\n`);
  }
  printQuery(fields, format);
  if (periodMs > 0) setInterval(() => printQuery(fields, format), periodMs);
  process.stdout.on('error', () => process.exit(0));
}

main(process.argv.slice(2));
