// The described system's load profiles. PROFILE chooses one; SHORT=1 squeezes it into a minute.
// Run by `cargo xtask load PROFILE`, which starts the host and sets GATEWAY, GRPC and THRESHOLDS.
import http from "k6/http";
import grpc from "k6/net/grpc";
import { check, sleep } from "k6";
import { Rate, Trend, Counter } from "k6/metrics";

const GATEWAY = __ENV.GATEWAY || "http://127.0.0.1:8000";
// Where orders are placed: the gateway too, unless its own cost is measured.
const ORDERS = __ENV.ORDERS || GATEWAY;
const GRPC = (__ENV.GRPC || "http://127.0.0.1:9080").replace("http://", "");
const PROFILE = __ENV.PROFILE || "smoke";
const SHORT = __ENV.SHORT === "1";

const orderCreation = new Trend("order_creation_duration", true);
const paymentSuccess = new Rate("payment_processing_success");
const compensations = new Counter("compensation_calls");

const stages = (list) =>
  list.map(([seconds, target]) => ({
    duration: `${SHORT ? Math.max(2, Math.round((seconds * 60) / total(list))) : seconds}s`,
    target,
  }));
const total = (list) => list.reduce((sum, [seconds]) => sum + seconds, 0);
const ramping = (list) => ({ executor: "ramping-vus", startVUs: 0, stages: stages(list), exec: "shop" });

const SCENARIOS = {
  // 30 s, one user
  smoke: { executor: "constant-vus", vus: 1, duration: "30s", exec: "shop" },
  // 16 min, 0 -> 20
  load: ramping([[120, 10], [300, 10], [120, 20], [300, 20], [120, 0]]),
  // 19 min, up to 100
  stress: ramping([[120, 20], [300, 20], [120, 50], [300, 50], [120, 100], [120, 100], [60, 0]]),
  // 5 min, 5 -> 100 -> 5
  spike: ramping([[30, 5], [10, 100], [180, 100], [10, 5], [60, 5], [10, 0]]),
  // 5 min, 10 a second: 80 % create, 20 % pay
  grpc: {
    executor: "constant-arrival-rate",
    rate: 10,
    timeUnit: "1s",
    duration: SHORT ? "60s" : "300s",
    preAllocatedVUs: 20,
    exec: "grpcMix",
  },
};

// Ours, on an idle machine; THRESHOLDS=described are those of the described system.
const OURS = {
  order_creation_duration: ["p(95)<=8"],
  http_req_failed: ["rate==0"],
  payment_processing_success: ["rate>0.95"],
  checks: ["rate==1"],
};
const DESCRIBED = {
  order_creation_duration: ["p(95)<500", "p(99)<1000"],
  http_req_failed: ["rate<0.05"],
  payment_processing_success: ["rate>0.95"],
};

export const options = {
  scenarios: { [PROFILE]: SCENARIOS[PROFILE] },
  thresholds: __ENV.THRESHOLDS === "described" ? DESCRIBED : OURS,
  summaryTrendStats: ["avg", "p(50)", "p(95)", "p(99)", "max"],
};

const json = { "Content-Type": "application/json" };

// The users share the load, as they would: nobody comes near a limit of one user.
const USERS = 20;

export function setup() {
  const expected = { headers: json, responseCallback: http.expectedStatuses({ min: 200, max: 299 }, 429) };
  const post = (path, body) => {
    for (;;) {
      const answer = http.post(`${GATEWAY}${path}`, JSON.stringify(body), expected);
      if (answer.status !== 429) return answer; // passwords are hashed at a bounded rate
      sleep(0.2);
    }
  };
  const login = (user) => {
    const answer = post("/auth/login", user);
    if (answer.status !== 200) throw new Error(`login: ${answer.status} ${answer.body}`);
    return answer.json("token");
  };
  const users = [];
  for (let number = 1; number <= USERS; number++) {
    const user = { username: `shopper-${number}`, password: "long enough" };
    const id = post("/v1/users", user).json("id");
    users.push({ id, token: login(user) });
  }
  // Payments are made by services and administrators.
  return { users, admin: login({ username: "admin", password: "password" }) };
}

const own = (users) => users[__VU % users.length];

// One order of a described client; one in twenty has a final step that fails.
export function shop({ users }) {
  const { id, token } = own(users);
  const fails = Math.random() < 0.05;
  const body = JSON.stringify({
    userId: id,
    productId: fails ? "fail-me" : "book",
    amount: Math.round(Math.random() * 90000 + 100) / 100,
  });
  const headers = { ...json, Authorization: `Bearer ${token}` };
  const answer = http.post(`${ORDERS}/OrderService/CreateOrder`, body, { headers });
  orderCreation.add(answer.timings.duration);
  const status = answer.status === 200 ? answer.json("status") : `HTTP ${answer.status}`;
  if (fails) {
    compensations.add(1);
    check(status, { "a failing order is undone": (status) => status === "FAILED" });
  } else {
    paymentSuccess.add(status === "SUCCESS");
    check(status, { "an order succeeds": (status) => status === "SUCCESS" });
  }
  sleep(Number(__ENV.THINK_SECONDS || "0.1"));
}

const client = new grpc.Client();
client.load(["../../proto/compat"], "orders.proto", "payments.proto");

export function grpcMix({ users, admin }) {
  const { id } = own(users);
  // One connection a user, for all its calls.
  if (__ITER === 0) client.connect(GRPC, { plaintext: true });
  const metadata = { authorization: `Bearer ${admin}` };
  if (Math.random() < 0.8) {
    const request = { user_id: id, product_id: "book", amount: 12.5 };
    const begun = Date.now();
    const answer = client.invoke("orders.OrderService/CreateOrder", request, { metadata });
    orderCreation.add(Date.now() - begun);
    check(answer, { "an order succeeds": (a) => a.status === grpc.StatusOK && a.message.status === "SUCCESS" });
  } else {
    const request = { order_id: `k6-${__VU}-${__ITER}-${Date.now()}`, amount: 12.5, user_id: id };
    const answer = client.invoke("payments.PaymentService/ProcessPayment", request, { metadata });
    const paid = answer.status === grpc.StatusOK && answer.message.success;
    paymentSuccess.add(paid);
    check(answer, { "a payment succeeds": () => paid });
  }
}

export function handleSummary({ metrics }) {
  const value = (name, key) => metrics[name]?.values[key];
  const ms = (name) =>
    ["p(50)", "p(95)", "p(99)", "max"].map((key) => `${key} ${value(name, key)?.toFixed(2)}`).join("  ");
  const lines = [
    `profile ${PROFILE}${SHORT ? " (short)" : ""}${ORDERS === GATEWAY ? "" : ", past the gateway"}`,
    `  order_creation_duration ms   ${ms("order_creation_duration")}`,
    `  payment_processing_success   ${((value("payment_processing_success", "rate") ?? 0) * 100).toFixed(2)} %`,
    `  compensation_calls           ${value("compensation_calls", "count") ?? 0}`,
    `  checks                       ${((value("checks", "rate") ?? 0) * 100).toFixed(2)} %`,
    `  iterations                   ${value("iterations", "count")} (${value("iterations", "rate")?.toFixed(1)}/s)`,
  ];
  for (const [name, metric] of Object.entries(metrics))
    for (const [threshold, { ok }] of Object.entries(metric.thresholds ?? {}))
      lines.push(`  ${ok ? "met   " : "MISSED"} ${name} ${threshold}`);
  return { stdout: `${lines.join("\n")}\n` };
}
