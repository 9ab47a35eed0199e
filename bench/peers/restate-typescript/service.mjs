// The order saga on Restate, as its documentation shows sagas: node service.mjs PORT
// The same steps as bench/peers/restate-rust.
import * as restate from "@restatedev/restate-sdk";

const payments = restate.service({
  name: "Payments",
  handlers: {
    charge: (ctx, { key, amount }) => ctx.run("charge", () => `${key}/${amount.minor}`),
  },
});

const orders = restate.service({
  name: "Orders",
  handlers: {
    place: async (ctx, { items }) => {
      const id = ctx.rand.uuidv4();
      const minor = items.reduce((sum, item) => sum + item.unit_price.minor * item.quantity, 0);
      const charge = { key: `${id}/charge`, amount: { minor, currency: items[0].unit_price.currency } };
      const payment_id = await ctx.serviceClient(payments).charge(charge);
      return { id, status: "completed", payment_id };
    },
  },
});

restate.serve({ services: [orders, payments], port: Number(process.argv[2]) });
