/**
 * Cells of one line of comma-separated values; a cell in double quotes may hold commas, and quotes doubled (RFC 4180).
 * Null if a quote does not end.
 */
export function csvCells(line: string): string[] | null {
  if (!line.includes('"')) return line.split(',');
  const cells: string[] = [];
  for (let at = 0; ; at++) {
    if (line[at] === '"') {
      let cell = '';
      for (;;) {
        const end = line.indexOf('"', at + 1);
        if (end < 0) return null;
        cell += line.slice(at + 1, end);
        at = end + 1;
        if (line[at] !== '"') break;
        cell += '"';
      }
      cells.push(cell);
    } else {
      const end = line.indexOf(',', at);
      cells.push(line.slice(at, end < 0 ? undefined : end));
      at = end < 0 ? line.length : end;
    }
    if (line[at] !== ',') return cells;
  }
}
