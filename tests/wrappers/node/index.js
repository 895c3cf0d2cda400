// A Matrix homeserver for the tests of bridges and bots: starts one understudy, and puts it back to its first state between tests.
//
// The binary is found through the variable UNDERSTUDY, or in PATH.
"use strict";

const { spawn } = require("node:child_process");
const fs = require("node:fs/promises");
const path = require("node:path");
const readline = require("node:readline");

/** The server answered with an error. */
class Refused extends Error {
  constructor(status, body) {
    super(`${status} ${body.errcode}: ${body.error}`);
    Object.assign(this, { status, body });
  }
}

/** A running server, whose database is in memory. It ends with this process, however that ends. */
class Understudy {
  #process;

  /** Starts a server. `args` are further options of `understudy dev`. */
  static async start({ binary = process.env.UNDERSTUDY || "understudy", args = [] } = {}) {
    const command = ["dev", "--port", "0", "--print-json", "--exit-with-parent", "--database", ":memory:", ...args];
    // The server ends when the pipe to its standard input is closed: at the latest with this process.
    const child = spawn(binary, command, { stdio: ["pipe", "pipe", "inherit"] });
    const ready = await new Promise((resolve, reject) => {
      child.once("error", (error) => reject(new Error(`${binary} cannot be started (set UNDERSTUDY): ${error.message}`)));
      child.once("exit", (code) => reject(new Error(`understudy did not start: exit code ${code}; its error is above`)));
      readline.createInterface({ input: child.stdout }).once("line", (line) => resolve(JSON.parse(line)));
    });
    return new Understudy(child, ready);
  }

  constructor(child, ready) {
    this.#process = child;
    this.baseUrl = ready.base_url;
    this.serverName = ready.server_name;
    /** Two users, each with `user_id`, `password`, `access_token` and `device_id`. */
    this.users = ready.users;
    /** The folder of registration files. */
    this.appservices = ready.appservices;
  }

  /** Makes a request. `where` begins with `/_`, or is below `/_matrix/client/v3`. */
  async call(method, where, body, token) {
    const url = this.baseUrl + (where.startsWith("/_") ? where : `/_matrix/client/v3${where}`);
    const headers = { "content-type": "application/json" };
    if (token) headers.authorization = `Bearer ${token}`;
    const options = { method, headers };
    if (method !== "GET") options.body = JSON.stringify(body ?? {});
    const answer = await fetch(url, options);
    const json = await answer.json();
    if (!answer.ok) throw new Refused(answer.status, json);
    return json;
  }

  #tell(where, body) {
    return this.call("POST", `/_understudy/${where}`, body);
  }

  /** Registers an application service. It is in force when this resolves. */
  async register(registration) {
    const file = path.join(this.appservices, `${encodeURIComponent(registration.id)}.yaml`);
    // JSON is valid YAML.
    await fs.writeFile(file, JSON.stringify(registration));
    const { problems } = await this.#tell("appservices/reload");
    if (problems.length) throw new Error(`the registration is refused: ${problems[0].why}`);
  }

  /** Returns to the first state, with the same users and tokens, and without registrations. */
  async reset() {
    for (const file of await fs.readdir(this.appservices)) {
      if (file.endsWith(".yaml")) await fs.unlink(path.join(this.appservices, file));
    }
    await this.#tell("reset");
  }

  /** Keeps a copy of the present state. Resolves to its id for `restore`. */
  async snapshot() {
    return (await this.#tell("snapshot")).id;
  }

  /** Returns to the state of a snapshot. The registration files stay as they are. */
  async restore(id) {
    await this.#tell("restore", { id });
  }

  /** Advances the server's clock: what was due in between is due now. */
  async advance(ms) {
    await this.#tell("clock/advance", { ms });
  }

  /** Breaks requests to an application service: `fault({ status: 500 }, { endpoint: "transactions", times: 2 })`. */
  async fault(fault, rule = {}) {
    return (await this.#tell("faults", { fault, ...rule })).id;
  }

  /** Every attempt to send a transaction to this application service, with its body and outcome. */
  transactions(service) {
    return this.call("GET", `/_understudy/transactions?service=${encodeURIComponent(service)}`);
  }

  /** Ends the server. */
  async stop() {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.stdin.end();
    await ended;
  }
}

module.exports = { Understudy, Refused };
