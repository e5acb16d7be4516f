'use strict';

/*
 * Stands in for LuCI's luci.js, form.js, rpc.js, uci.js and ui.js, as far as the views of
 * luci-app-mldproxy use them. Answers calls as rpcd does: by the recorded answers, for the methods
 * that the plugin lists, and only if the app's ACL grants them. `RECORDED` comes from the test.
 */

const reported = [];
const calls = new Set();

function report(line) {
	reported.push(line);
}

window.addEventListener('error', (event) =>
	report(`error: ${event.message ?? event.target?.href ?? event.target?.src}`), true);
window.addEventListener('unhandledrejection', (event) => report(`error: ${event.reason}`));
for (const level of [ 'error', 'warn' ])
	console[level] = (...words) => report(`error: console.${level}: ${words.join(' ')}`);

String.prototype.format = function(...values) {
	return this.replace(/%[sd]/g, (code) => {
		if (values.length == 0)
			report(`error: too few values for ${JSON.stringify(String(this))}`);
		return String(values.shift());
	});
};

function _(text) {
	return RECORDED.translations?.[text] ?? text;
}

/* As in LuCI, a text in an array is a text, and a text alone is HTML. A LuCI of 2024 shows what is
 * null in an array as a text, too. */
function append(node, children) {
	if (Array.isArray(children))
		for (const child of children) {
			if (child == null)
				report('error: nothing as a child');
			node.appendChild((child instanceof Node) ? child : document.createTextNode(child));
		}
	else if (children instanceof Node)
		node.appendChild(children);
	else if (children != null)
		node.innerHTML = `${children}`;
}

function E(tag, attributes, children) {
	const node = document.createElement(tag);
	for (const name in attributes ?? {}) {
		const value = attributes[name];
		if (typeof(value) == 'function')
			node.addEventListener(name, value);
		else if (value != null)
			node.setAttribute(name, value);
	}
	append(node, children);
	return node;
}

class Base {
	constructor(...values) {
		this.__init__?.(...values);
	}

	static extend(properties) {
		const Extended = class extends this {};
		for (const name in properties)
			Object.defineProperty(Extended.prototype, name, {
				value: properties[name], writable: true
			});
		return Extended;
	}
}

const L = {
	dom: {
		content(node, children) {
			node.replaceChildren();
			append(node, children);
		}
	},
	resource: (path) => `${RECORDED.resources}/${path}`,
	url: (path) => `/cgi-bin/luci/${path}`,
	hasViewPermission: () => RECORDED.mayWrite
};

const poll = {
	add(refresh, seconds) {
		if (seconds != 5)
			report(`error: refreshed each ${seconds} s`);
		setTimeout(refresh, 0);
		setInterval(refresh, 1000 * seconds);
	}
};

/* The methods of rpcd's plugin, and the ubus objects that other programs have. */
function exists(object, method) {
	const others = { 'service': 'list', 'luci-rpc': 'getHostHints', 'network.interface': 'dump' };
	return (object == 'mldproxy')
		? RECORDED.methods != null && RECORDED.methods[method] != null
		: others[object] == method;
}

function isGranted(object, method) {
	const { read, write } = RECORDED.acl['luci-app-mldproxy'];
	const has = (rights) => rights.ubus?.[object]?.includes(method) === true;
	return has(read) || (has(write) && RECORDED.mayWrite);
}

const rpc = {
	declare: ({ object, method, params, expect, reject }) => (...values) => {
		calls.add(`${object}.${method}`);
		if (object == 'mldproxy' && RECORDED.methods != null)
			for (const name of params)
				if (RECORDED.methods[method]?.[name] != 'string')
					report(`error: ${method} takes no ${name}`);
		const code = !isGranted(object, method) ? 6 : exists(object, method) ? 0 : 4;
		if (code == 6 && RECORDED.mayWrite)
			report(`error: the ACL does not grant ${object}.${method}`);
		const seconds = { check: 5, prove: 10 }[method] ?? 0.1;
		const found = RECORDED.answers[`${object}.${method}`];
		const answer = found?.[values[0]] ?? found?.[''];
		return new Promise((resolve, fail) => setTimeout(() => {
			if (code != 0 && reject)
				fail(new Error(`RPC call to ${object}/${method} failed with ubus code ${code}: ?`));
			else if (expect)
				for (const name in expect)
					resolve(((name == '') ? answer : answer?.[name]) ?? expect[name]);
			else
				resolve(structuredClone(answer));
		}, 1000 * seconds));
	}
};

/* The sections of a configuration file. */
function parseConfig(text) {
	const sections = [];
	for (const line of text.split('\n')) {
		const [ , kind, name, value ] = /^\s*(config|option|list) (\S+) '(.*)'$/.exec(line) ?? [];
		const section = sections.at(-1);
		if (kind == 'config')
			sections.push({ '.type': name, '.name': value });
		else if (kind == 'option')
			section[name] = value;
		else if (kind == 'list')
			section[name] = (section[name] ?? []).concat(value);
	}
	return sections;
}

const uci = {
	load: () => Promise.resolve(),
	sections: (config, type) => parseConfig(RECORDED.config).filter((section) =>
		type == null || section['.type'] == type),
	get(config, name, option) {
		const section = uci.sections().find((section) => section['.name'] == name);
		return (option == null) ? section : section?.[option];
	}
};

const ui = {
	showModal(title, children) {
		ui.hideModal();
		document.body.append(E('div', { 'id': 'modal_overlay' }, [
			E('div', { 'class': 'modal' }, [ E('h4', {}, [ title ]) ].concat(children))
		]));
	},
	hideModal() {
		document.getElementById('modal_overlay')?.remove();
	}
};

/* The form shows each option as a field, and reports what it is. */
class Field {
	constructor(section, tab, name, title, help) {
		Object.assign(this, { section, tab, name, title, help, choices: [], needs: null });
		this.enabled = '1';
		this.disabled = '0';
	}

	value(value, label) {
		this.choices.push([ value, label ?? value ]);
	}

	depends(name, value) {
		this.needs = [ name, value ];
	}

	render(values) {
		const kind = this.constructor.kind;
		const standard = this.placeholder ?? this.default ?? '';
		report([ 'option', this.name, kind, standard, this.datatype ?? '' ].join('\t'));
		if (!this.title || !this.help)
			report(`error: ${this.name} has no title or no help`);
		const set = [ values[this.name] ?? this.default ].flat().filter((value) => value != null);
		for (const value of set)
			if ((this.validate?.(values['.name'], value) ?? true) !== true)
				report(`error: ${this.name} does not take ${value}`);
		return E('div', { 'class': 'cbi-value', 'data-name': this.name }, [
			E('label', { 'class': 'cbi-value-title' }, [ this.title ]),
			E('div', { 'class': 'cbi-value-field' }, [
				this.widget(set),
				E('div', { 'class': 'cbi-value-description' }, this.help)
			])
		]);
	}

	widget(values) {
		const list = `choices-${this.name}`;
		return E('div', {}, [
			E('input', {
				'type': 'text', 'class': 'cbi-input-text', 'placeholder': this.placeholder,
				'value': values.join(' '), 'list': list
			}),
			E('datalist', { 'id': list }, this.choices.map(([ value ]) => E('option', { value })))
		]);
	}
}

const form = {
	Value: class extends Field { static kind = 'Value'; },
	DynamicList: class extends Field { static kind = 'DynamicList'; },
	Flag: class extends Field {
		static kind = 'Flag';
		widget(values) {
			return E('input', { 'type': 'checkbox', 'checked': (values[0] == '1') ? '' : null });
		}
	},
	ListValue: class extends Field {
		static kind = 'ListValue';
		widget(values) {
			return E('select', {}, this.choices.map(([ value, label ]) => E('option', {
				'value': value, 'selected': (value == values[0]) ? '' : null
			}, [ label ])));
		}
	},

	TypedSection: class {
		constructor(type, title) {
			Object.assign(this, { type, title, tabs: [], fields: [] });
		}

		tab(name, title) {
			this.tabs.push([ name, title ]);
		}

		taboption(tab, Widget, name, title, help) {
			if (!this.tabs.some(([ known ]) => known == tab))
				report(`error: no tab ${tab}`);
			const field = new Widget(this, tab, name, title, help);
			this.fields.push(field);
			return field;
		}

		formvalue(section, name) {
			return uci.get('mldproxy', section, name) ?? null;
		}

		render() {
			return uci.sections('mldproxy', this.type).map((values) =>
				E('div', { 'class': 'cbi-section' }, [
					E('h3', {}, [ values['.name'] ])
				].concat(this.tabs.map(([ tab, title ]) => E('fieldset', {}, [
					E('h4', {}, [ title ])
				].concat(this.fields.filter((field) => field.tab == tab)
					.map((field) => field.render(values))))))));
		}
	},

	Map: class {
		constructor(config, title, help) {
			Object.assign(this, { title, help, sections: [] });
		}

		section(Section, type, title) {
			const section = new Section(type, title);
			this.sections.push(section);
			return section;
		}

		render() {
			return Promise.resolve(E('div', { 'class': 'cbi-map' }, [
				E('h2', {}, [ this.title ]), E('div', {}, this.help)
			].concat(this.sections.flatMap((section) => section.render()))));
		}
	}
};

const BUILT_IN = { baseclass: Base, view: Base, poll, rpc, uci, ui, form };
const loaded = {};

/* Loads a class by its name: `require x.y as z` at the start of a file names what it needs. */
function load(name) {
	if (BUILT_IN[name])
		return BUILT_IN[name];
	if (!loaded[name]) {
		const source = RECORDED.sources[name];
		const needs = [ ...source.matchAll(/^'require ([\w.]+)(?: as (\w+))?';$/gm) ];
		const names = needs.map(([ , path, alias ]) => alias ?? path);
		const factory = new Function('_', 'E', 'L', ...names, source);
		const Loaded = factory(_, E, L, ...needs.map(([ , path ]) => load(path)));
		loaded[name] = new Loaded();
	}
	return loaded[name];
}

/* Shows a view, has the named check look at it, and tells the page around this one. */
async function show(name, check) {
	const place = document.getElementById('view');
	try {
		const view = load(name);
		place.append(await view.render(await view.load?.()));
		await CHECKS[check](place);
		const { scrollWidth, clientWidth } = document.documentElement;
		if (scrollWidth > clientWidth)
			report(`error: ${scrollWidth} pixels wide, and there are ${clientWidth}`);
	} catch (error) {
		report(`error: ${error.stack ?? error}`);
	}
	for (const { name } of performance.getEntriesByType('resource'))
		if (!name.startsWith('file:'))
			report(`error: loads ${name}`);
	for (const call of calls)
		report(`call\t${call}`);
	parent.document.getElementById(RECORDED.result).textContent = reported.concat('end').join('\n');
}
