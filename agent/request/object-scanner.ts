import { ByteSink, type Sink } from './byte-sink.ts';
import { COLON, isEnd, type JsonScanner, type KeyTable, OPEN_OBJECT, QUOTE, type Scan } from './json-scanner.ts';

/** Reads the members of an object that are wanted. */
export interface MemberReader {
  /**
   * Reads the value of `key`, which begins with `byte` under the cursor, or returns how to go on; false: it is not
   * wanted. `key` is '' for one that nobody wants.
   */
  member(key: string, byte: number): Scan | boolean;
}

/** Longest key that can be wanted, as it is written: each character may be an escape. */
const MAX_KEY_BYTES = 192;

/** Goes through the members of an object. `echo` gets the JSON of all of it but the values that `reader` reads. */
export class ObjectScanner {
  private readonly scanner: JsonScanner;
  private readonly keys: KeyTable;
  private readonly key = new ByteSink(MAX_KEY_BYTES);

  constructor(scanner: JsonScanner, keys: KeyTable) {
    this.scanner = scanner;
    this.keys = keys;
  }

  *scan(reader: MemberReader, echo?: Sink): Scan {
    const { scanner, key } = this;
    echo?.push(OPEN_OBJECT);
    scanner.advance();
    for (;;) {
      let byte = scanner.peek();
      for (; byte < 0; byte = scanner.peek()) yield;
      if (byte !== QUOTE) {
        scanner.advance();
        echo?.push(byte);
        if (isEnd(byte)) return;
        continue;
      }
      let name = scanner.shortKey(this.keys, echo);
      if (name === undefined) {
        key.reset();
        scanner.begin();
        while (!scanner.walk(key)) yield;
        name = this.nameOf(key);
        echo?.copy(key.bytes, 0, key.length);
      }
      for (byte = scanner.peek(); byte < 0; byte = scanner.peek()) yield;
      if (byte !== COLON) continue;
      echo?.push(COLON);
      scanner.advance();
      for (byte = scanner.peek(); byte < 0; byte = scanner.peek()) yield;
      const scan = reader.member(name, byte);
      if (scan === false) {
        scanner.begin();
        while (!scanner.walk(echo)) yield;
      } else if (scan !== true) yield* scan;
    }
  }

  /** Name of a key that is long, escaped or cut by the end of a chunk. */
  private nameOf({ full, bytes }: ByteSink): string {
    if (full) return '';
    try {
      const name = Buffer.from(String(JSON.parse(bytes.toString())));
      return this.keys.nameOf(name, 0, name.length);
    } catch {
      return '';
    }
  }
}
