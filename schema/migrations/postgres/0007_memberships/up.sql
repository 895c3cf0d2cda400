-- What a membership's past allows: `left_at` is where the user last ceased to be joined, `forgotten_at` where it last forgot the
-- room; 0 is never. The room is forgotten while `forgotten_at` is above the position of the membership.
ALTER TABLE memberships ADD COLUMN left_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE memberships ADD COLUMN forgotten_at BIGINT NOT NULL DEFAULT 0;

-- The first member event after the last join. Where the user is joined now, nothing asks for it.
UPDATE memberships SET left_at = COALESCE((
  SELECT MIN(e.position) FROM events e
  WHERE e.room_id = memberships.room_id AND e.kind = 'm.room.member' AND e.state_key = memberships.user_id
    AND e.position > (
      SELECT MAX(j.position) FROM events j
      WHERE j.room_id = memberships.room_id AND j.kind = 'm.room.member' AND j.state_key = memberships.user_id
        AND (j.pdu::json -> 'content' ->> 'membership') = 'join'
    )
), 0) WHERE membership <> 'join';
UPDATE memberships SET forgotten_at = position + 1 WHERE forgotten;

ALTER TABLE memberships DROP COLUMN forgotten;
CREATE INDEX memberships_forgotten ON memberships (user_id, forgotten_at) WHERE forgotten_at > 0;
