// Verifies result tokens with npm's jose. Runs under its own Node.js: `.peers/jose/bin/node tests/peers/jose_tokens.mjs`
// with a JSON object on each line of standard input (token, jwks, audience, at, typ), and one with `claims` or `refused`
// on standard output for each.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.env.WEIGHBRIDGE_PEER}/package.json`));
const { createLocalJWKSet, jwtVerify } = await import(pathToFileURL(require.resolve("jose")));

for await (const line of createInterface({ input: process.stdin })) {
  const { token, jwks, audience, at, typ } = JSON.parse(line);
  let answer;
  try {
    const options = { audience, typ, algorithms: ["ES256"], currentDate: new Date(at) };
    const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), options);
    answer = { claims: payload };
  } catch (error) {
    answer = { refused: `${error.code ?? error.name}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
