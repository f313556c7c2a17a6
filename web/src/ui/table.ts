// A table of rows; on a phone each row is a card, and its cells carry the names of their columns.

import { h, type Child } from './dom.ts';

export interface Column<T> {
  title: string;
  /** How much room: what is not `wide` is as narrow as it can be. */
  kind?: 'wide' | 'actions' | 'number';
  cell(row: T): Child | Child[];
}

/** `key` names a row for those who look for it. */
export function table<T>(label: string, testid: string, columns: readonly Column<T>[], rows: readonly T[], key: (row: T) => string): HTMLElement {
  const head = columns.map(({ title, kind }) =>
    h('th', { scope: 'col', role: 'columnheader', 'data-kind': kind }, kind === 'actions' ? h('span', { class: 'unseen' }, title) : title),
  );
  const body = rows.map((row) =>
    h(
      'tr',
      { role: 'row', testid: `${testid}-row`, 'data-key': key(row) },
      ...columns.map(({ title, kind, cell }) => {
        const content = cell(row);
        return h(
          'td',
          { role: 'cell', 'data-kind': kind, 'data-title': title },
          h('div', { class: 'cell' }, ...(Array.isArray(content) ? content : [content])),
        );
      }),
    ),
  );
  // The roles are said, because a browser forgets them where a table is laid out as cards.
  return h(
    'table',
    { class: 'table', role: 'table', 'aria-label': label, testid },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ...head)),
    h('tbody', { role: 'rowgroup' }, ...body),
  );
}

/** A name with a line of less weight below it. */
export function twoLines(first: Child | Child[], second: string | null): Child {
  const head = Array.isArray(first) ? first : [first];
  return h(
    'div',
    { class: 'two-lines' },
    h('span', { class: 'line-head' }, ...head),
    second === null ? null : h('span', { class: 'line-more', title: second }, second),
  );
}

export function actionButton(label: string, testid: string, onclick: () => void, about: string): HTMLElement {
  return h('button', { type: 'button', class: 'button small', testid, onclick, 'aria-label': `${label} ${about}` }, label);
}
