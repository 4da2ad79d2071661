// What an application does with the BigchainDB driver, unmodified, against a running bcdb node.
//
//     node tests/npm/driver_scenario.js [http://localhost:9984/api/v1/] [ws://.../streams/valid_transactions ...]
//
// With READ_FROM=http://.../api/v1/ everything is written to the first node and read from this one, which may be
// another node of the same network.
//
// The driver comes from node_modules above this file or from build/npm (`make npm` puts it there). Further addresses
// are event streams to listen to; without any it is the one that the node's index names. Every step prints a line;
// the exit code is 0 when all of them went as they should.
'use strict'

const assert = require('node:assert/strict')
const path = require('node:path')
const { createRequire } = require('node:module')

const EVENT_WAIT_MS_MAX = 20000

function load(name) {
    const places = [require, createRequire(path.join(__dirname, '..', '..', 'build', 'npm', 'package.json'))]
    for (const from of places) {
        try {
            return from(name)
        } catch (error) {
            if (error.code !== 'MODULE_NOT_FOUND') throw error
        }
    }
    console.error(`The npm package ${name} is not installed; 'make npm' does it.`)
    return process.exit(2)
}

const { Connection, Ed25519Keypair, Transaction } = load('bigchaindb-driver')
const WebSocket = load('ws')

const api = process.argv[2] || 'http://localhost:9984/api/v1/'
const readingFrom = process.env.READ_FROM || api
const writer = new Connection(api)
const reader = new Connection(readingFrom)
const [alice, bob, carol] = [1, 2, 3].map(() => new Ed25519Keypair())
const nonce = `n${alice.publicKey.slice(0, 12).toLowerCase()}`
const committed = []

const step = (text) => console.log(`ok  ${text}`)
const to = (owner, amount) => Transaction.makeOutput(Transaction.makeEd25519Condition(owner.publicKey), amount)

function create(owner, data, metadata, outputs) {
    const transaction = Transaction.makeCreateTransaction(data, metadata, outputs, owner.publicKey)
    return Transaction.signTransaction(transaction, owner.privateKey)
}

function transfer(owner, spent, outputs, metadata) {
    const inputs = spent.map(([tx, index]) => ({ tx, output_index: index }))
    const transaction = Transaction.makeTransferTransaction(inputs, outputs, metadata)
    return Transaction.signTransaction(transaction, ...spent.map(() => owner.privateKey))
}

async function commit(transaction) {
    const echoed = await writer.postTransactionCommit(transaction)
    assert.deepEqual(echoed, transaction, 'the answer to a POST is the transaction')
    // What a node calls committed it shows at once; another node of its network has it a moment later.
    if (readingFrom !== api) await settled(transaction)
    committed.push(transaction)
    return transaction
}

async function refused(promise, status) {
    await assert.rejects(promise, (error) => {
        assert.equal(error.status, status)
        return true
    })
}

async function settled(transaction) {
    for (let round = 0; round < 400; round += 1) {
        if ((await reader.listBlocks(transaction.id)).length) return
        await new Promise((wake) => setTimeout(wake, 25))
    }
    assert.fail(`${transaction.id} was accepted and not committed`)
}

const pairs = (outputs) => outputs.map((output) => `${output.transaction_id}:${output.output_index}`).sort()
const ids = (transactions) => transactions.map((transaction) => transaction.id)

/** Collect the events of one stream; resolves once it is open. */
function listen(url) {
    const stream = { url, events: [], socket: new WebSocket(url) }
    stream.socket.on('message', (data) => stream.events.push(JSON.parse(data.toString())))
    return new Promise((open, fail) => {
        stream.socket.on('open', () => open(stream))
        stream.socket.on('error', fail)
    })
}

async function heard(stream, wanted) {
    const deadline = Date.now() + EVENT_WAIT_MS_MAX
    const mine = () => stream.events.filter((event) => wanted.includes(event.transaction_id))
    while (mine().length < wanted.length && Date.now() < deadline) {
        await new Promise((wake) => setTimeout(wake, 25))
    }
    return mine()
}

async function indivisible() {
    const data = { bicycle: { serial: `b-${nonce}`, maker: 'Steelworks of the north' } }
    const bought = { note: `bought ${nonce}`, price: 0.000001, odd: 'a\u001fb', tiny: 1e-7, huge: 1e21 }
    const bicycle = await commit(create(alice, data, bought, [to(alice)]))
    assert.deepEqual(await reader.getTransaction(bicycle.id), bicycle)
    step('CREATE, its numbers and control characters in the form of JavaScript')

    assert.deepEqual(pairs(await reader.listOutputs(alice.publicKey, false)), [`${bicycle.id}:0`])
    assert.deepEqual(await reader.listOutputs(alice.publicKey, true), [])

    const sold = await commit(transfer(alice, [[bicycle, 0]], [to(bob)], { note: `sold ${nonce}` }))
    assert.deepEqual(await reader.getTransaction(sold.id), sold)
    step('TRANSFER')

    assert.deepEqual(await reader.listOutputs(alice.publicKey, false), [])
    assert.deepEqual(pairs(await reader.listOutputs(alice.publicKey, true)), [`${bicycle.id}:0`])
    assert.deepEqual(pairs(await reader.listOutputs(alice.publicKey)), [`${bicycle.id}:0`])
    assert.deepEqual(pairs(await reader.listOutputs(bob.publicKey, false)), [`${sold.id}:0`])
    step('outputs, spent and unspent')

    const again = transfer(alice, [[bicycle, 0]], [to(carol)], { note: `sold twice ${nonce}` })
    await refused(writer.postTransactionCommit(again), '400 BAD REQUEST')
    await refused(writer.postTransactionSync(again), '400 BAD REQUEST')
    await refused(reader.getTransaction(again.id), '404 NOT FOUND')
    const stolen = transfer(carol, [[sold, 0]], [to(carol)], null)
    await refused(writer.postTransactionCommit(stolen), '400 BAD REQUEST')
    await refused(writer.postTransactionCommit(bicycle), '400 BAD REQUEST')
    step('a double spend, a theft and a duplicate are refused')
    return { bicycle, sold }
}

async function divisible() {
    const tokens = await commit(create(alice, { token: `t-${nonce}` }, null, [to(alice, '10')]))
    const split = await commit(transfer(alice, [[tokens, 0]], [to(bob, '4'), to(alice, '6')], null))
    assert.deepEqual(ids(await reader.listTransactions(tokens.id, 'TRANSFER')), [split.id])
    const wrong = transfer(alice, [[split, 1]], [to(bob, '7')], null)
    await refused(writer.postTransactionCommit(wrong), '400 BAD REQUEST')
    const back = await commit(transfer(bob, [[split, 0]], [to(alice, '4')], null))
    const whole = await commit(transfer(alice, [[back, 0], [split, 1]], [to(carol, '10')], null))
    assert.deepEqual(pairs(await reader.listOutputs(carol.publicKey, false)), [`${whole.id}:0`])
    step('a divisible asset is split and joined; a wrong sum is refused')
}

async function shared() {
    const keys = [alice, bob].map((owner) => Transaction.makeEd25519Condition(owner.publicKey, false))
    const both = Transaction.makeThresholdCondition(2, keys)
    const house = await commit(create(alice, { house: nonce }, null, [Transaction.makeOutput(both)]))
    assert.ok(pairs(await reader.listOutputs(bob.publicKey, false)).includes(`${house.id}:0`))
    step('an output that two people own together')
}

async function modes() {
    for (const post of ['postTransactionAsync', 'postTransactionSync']) {
        const transaction = create(alice, { mode: post, nonce }, null, [to(alice)])
        assert.deepEqual(await writer[post](transaction), transaction)
        await settled(transaction)
        committed.push(transaction)
    }
    step('modes async and sync')
}

async function finding({ bicycle, sold }) {
    const assets = await reader.searchAssets(nonce)
    const found = assets.find((asset) => asset.id === bicycle.id)
    assert.deepEqual(found, { id: bicycle.id, data: bicycle.asset.data })
    assert.deepEqual(ids(await reader.searchAssets(`"b-${nonce}" steelwork`)), [bicycle.id])
    assert.equal((await reader.searchAssets(nonce, 1)).length, 1)
    assert.deepEqual(await reader.searchAssets(`no${nonce}`), [])
    const metadata = await reader.searchMetadata(`"sold ${nonce}"`)
    assert.deepEqual(metadata, [{ id: sold.id, metadata: sold.metadata }])
    step('search in assets and metadata')

    assert.deepEqual(ids(await reader.listTransactions(bicycle.id)), [bicycle.id, sold.id])
    assert.deepEqual(ids(await reader.listTransactions(bicycle.id, 'CREATE')), [bicycle.id])
    assert.deepEqual(await reader.listTransactions(bicycle.id, 'TRANSFER'), [sold])
    step('the transactions of an asset')

    const [height] = await reader.listBlocks(sold.id)
    const block = await reader.getBlock(height)
    assert.equal(block.height, height)
    assert.ok(block.transactions.some((transaction) => transaction.id === sold.id))
    assert.deepEqual(await reader.listBlocks('0'.repeat(64)), [])
    step('blocks')
}

async function events(streams) {
    const wanted = ids(committed)
    for (const stream of streams) {
        const mine = await heard(stream, wanted)
        assert.deepEqual(mine.map((event) => event.transaction_id), wanted, `events of ${stream.url}`)
        for (const [position, event] of mine.entries()) {
            const { asset, id } = committed[position]
            assert.equal(event.asset_id, asset.id || id)
            assert.deepEqual(await reader.listBlocks(event.transaction_id), [event.height])
        }
        stream.socket.close()
        step(`${mine.length} events in the order of commitment from ${stream.url}`)
    }
}

async function main() {
    const index = await (await fetch(readingFrom)).json()
    const named = process.argv.slice(3)
    const streams = await Promise.all((named.length ? named : [index.streams]).map(listen))
    const traded = await indivisible()
    await divisible()
    await shared()
    await modes()
    await finding(traded)
    await events(streams)
    console.log(`${committed.length} transactions committed, all steps as they should be`)
}

main().catch((error) => {
    console.error('not ok', error)
    process.exit(1)
})
