// What the Node library does on a stream: `work` performs its jobs, `publish` sends some as its users do.
// Each line on stdout is JSON.
const { jobProcessor } = require('nats-jobs')
const { connect, headers, JSONCodec } = require('nats')
const { encode } = require('@msgpack/msgpack')

const [, , role, servers, stream] = process.argv
const tell = (what, fields) => console.log(JSON.stringify({ what, ...fields }))
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const work = async () => {
  const processor = await jobProcessor({ servers })
  processor.start({
    stream,
    // Current servers want the filter of a pull subscription to be the consumer's.
    filterSubject: stream,
    batch: 3,
    perform: async (msg) => {
      tell('start', { n: JSONCodec().decode(msg.data).n, attempt: msg.info.redeliveryCount })
      await sleep(50)
      tell('end', { n: JSONCodec().decode(msg.data).n })
    },
  })
  tell('started', {})
  process.on('SIGTERM', async () => {
    await processor.stop()
    process.exit(0)
  })
}

const publish = async () => {
  const connection = await connect({ servers })
  const js = connection.jetstream()
  const payload = { text: 'grüß', list: [1, 2.5, null, true], when: new Date(Date.UTC(2026, 10, 23, 12, 30, 0, 123)) }
  const labelled = headers()
  labelled.set('Content-Type', 'application/json')
  await js.publish(stream, JSONCodec().encode(payload), { headers: labelled })
  labelled.set('Content-Type', 'application/msgpack')
  await js.publish(stream, encode(payload), { headers: labelled })
  await js.publish(stream, JSONCodec().encode(payload))
  await connection.drain()
}

;({ work, publish })[role]()
