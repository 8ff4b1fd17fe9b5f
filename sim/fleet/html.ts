export function simPage(..._args: unknown[]): string { return ''; }
