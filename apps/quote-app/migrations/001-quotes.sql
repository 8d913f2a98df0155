CREATE TABLE quotes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  text text NOT NULL CHECK (char_length(text) BETWEEN 1 AND 1000),
  author text NOT NULL CHECK (char_length(author) BETWEEN 1 AND 200),
  created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO quotes (text, author) VALUES
  ('Simplicity is prerequisite for reliability.', 'Edsger W. Dijkstra'),
  ('The most dangerous phrase in the language is: we have always done it this way.', 'Grace Hopper'),
  ('Everything fails, all the time.', 'Werner Vogels'),
  ('Beware of bugs in the above code; I have only proved it correct, not tried it.', 'Donald Knuth'),
  ('Nothing in life is to be feared, it is only to be understood.', 'Marie Curie');
